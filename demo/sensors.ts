/** The sensors of the demo, and the curves that their readings follow. */

/** One sensor of a device. */
export interface Sensor {
  readonly label: string;
  readonly unit: string;
  /** Name of the driver that reads the device. */
  readonly driver: string;
  /** Identifier that the device reports. */
  readonly uid: string;
  /** Identifier of the device in the laboratory's inventory. */
  readonly uuid: string;
  /** Distinguishes the sensors of one device. */
  readonly sid: number;
  /** Returns whether the sensor measures in this second; if missing, it measures every second. */
  readonly isDue?: (seconds: number) => boolean;
  /** Returns the value at a time in seconds. The times of successive calls must not decrease. */
  readonly measure: (seconds: number) => number;
  /** Formats a value with a sensible number of digits. */
  readonly format: (value: number) => string;
}

/** Returns the MQTT topic of a sensor's readings. */
export function topicOf({ driver, uid, sid }: Sensor): string {
  return `sensors/${driver}/${uid}/${sid}`;
}

/**
 * Creates the sensors. Each call creates new device ids, so that two demos at one broker do not
 * receive each other's readings.
 */
export function createSensors(): Sensor[] {
  const climate = device("tinkerforge", "Lx7");
  const laser = device("thorlabs", "PM3");
  const vacuum = device("pfeiffer", "TPG");
  const cryostat = device("lakeshore", "LS2");
  const mains = device("janitza", "UMG");
  const fixed = (digits: number) => (value: number): string => value.toFixed(digits);
  return [
    {
      ...climate,
      sid: 0,
      label: "Laboratory temperature",
      unit: "°C",
      measure: curve({ mean: 21.4, swing: 0.25, periodSeconds: 600, drift: 0.15, noise: 0.006 }),
      format: fixed(3),
    },
    {
      ...climate,
      sid: 1,
      label: "Laboratory humidity",
      unit: "%",
      measure: curve({ mean: 43, swing: 1.2, periodSeconds: 600, drift: 0.8, noise: 0.05 }),
      format: fixed(2),
    },
    {
      ...climate,
      sid: 2,
      label: "Air pressure",
      unit: "hPa",
      measure: curve({ mean: 1008.6, swing: 0.4, periodSeconds: 7200, drift: 0.3, noise: 0.01 }),
      format: fixed(2),
    },
    {
      ...laser,
      sid: 0,
      label: "Laser power",
      unit: "mW",
      measure: curve({ mean: 312, swing: 1.5, periodSeconds: 180, drift: 2, noise: 0.25 }),
      format: fixed(2),
    },
    {
      ...vacuum,
      sid: 0,
      label: "Vacuum pressure",
      unit: "mbar",
      // The gauge is off for half a minute at intervals, as if it were unplugged.
      isDue: (seconds) => seconds % 150 < 120,
      measure: pumpDown({ from: 4e-7, to: 2.6e-9, timeConstantSeconds: 240 }),
      format: (value) => value.toExponential(2),
    },
    {
      ...cryostat,
      sid: 0,
      label: "Cryostat temperature",
      unit: "K",
      measure: curve({ mean: 4.21, swing: 0.004, periodSeconds: 90, drift: 0.01, noise: 0.0008 }),
      format: fixed(4),
    },
    {
      ...device("airthings", "R2"),
      sid: 0,
      label: "Radon",
      unit: "Bq/m³",
      isDue: (seconds) => Math.floor(seconds) % 10 === 0,
      measure: curve({ mean: 38, swing: 4, periodSeconds: 3600, drift: 2, noise: 0.4 }),
      format: fixed(1),
    },
    {
      ...mains,
      sid: 0,
      label: "Mains voltage",
      unit: "V",
      measure: curve({ mean: 231.2, swing: 0.9, periodSeconds: 1800, drift: 0.8, noise: 0.2 }),
      format: fixed(1),
    },
    {
      ...mains,
      sid: 1,
      label: "Mains frequency",
      unit: "Hz",
      measure: curve({ mean: 50, swing: 0.01, periodSeconds: 300, drift: 0.012, noise: 0.001 }),
      format: fixed(3),
    },
  ];
}

function device(driver: string, model: string): { driver: string; uid: string; uuid: string } {
  const uuid = crypto.randomUUID();
  return { driver, uid: `${model}-${uuid.slice(0, 4)}`, uuid };
}

interface CurveOptions {
  readonly mean: number;
  /** Amplitude of a slow sine. */
  readonly swing: number;
  readonly periodSeconds: number;
  /** Slow change over minutes, as a standard deviation. */
  readonly drift: number;
  /** Change from one reading to the next, as a standard deviation. */
  readonly noise: number;
}

/** Share of its drift that a curve keeps from one second to the next; it changes over minutes. */
const DRIFT_MEMORY = 0.995;

function curve(options: CurveOptions): (seconds: number) => number {
  const { mean, swing, periodSeconds, drift, noise } = options;
  const phase = Math.random() * 2 * Math.PI;
  const step = drift * Math.sqrt(1 - DRIFT_MEMORY ** 2);
  let drifted = 0;
  return (seconds) => {
    drifted = drifted * DRIFT_MEMORY + step * gauss();
    const sine = swing * Math.sin(phase + 2 * Math.PI * seconds / periodSeconds);
    return mean + sine + drifted + noise * gauss();
  };
}

interface PumpDownOptions {
  readonly from: number;
  readonly to: number;
  readonly timeConstantSeconds: number;
}

/** Noise of a vacuum gauge, relative to its value. */
const GAUGE_NOISE = 0.008;

function pumpDown(options: PumpDownOptions): (seconds: number) => number {
  const { from, to, timeConstantSeconds } = options;
  let startSeconds: number | undefined;
  return (seconds) => {
    startSeconds ??= seconds;
    const gas = (from - to) * Math.exp((startSeconds - seconds) / timeConstantSeconds);
    return (to + gas) * (1 + GAUGE_NOISE * gauss());
  };
}

/** Returns a normally distributed random number (Box-Muller), mean 0, standard deviation 1. */
function gauss(): number {
  return Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
}
