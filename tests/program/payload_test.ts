/**
 * Payloads, one by one, through the whole program: the rows of accepted ones, and the reasons of
 * rejected ones.
 */
import assert from "node:assert/strict";
import { startBroker } from "../support/broker.ts";
import { loggerEnv, startLogger } from "../support/logger_process.ts";
import type { TestDatabase } from "../support/postgres_database.ts";
import { publishPayloads } from "../support/publisher.ts";
import { delay, waitUntil } from "../support/poll.ts";
import { createSession, linesOf, stopCleanly, usePostgres } from "../support/harness.ts";
import { startScriptedBroker } from "../fakes/scripted_broker.ts";
import { createRandom } from "../support/readings.ts";

const UUID = "c4ca4238-a0b9-4382-8dcc-509a6f75849b";

const postgres = usePostgres();

/** Fields of a message as JSON texts; null leaves a field out. */
type Fields = Readonly<Record<string, string | null>>;

function message(fields: Fields = {}): string {
  const all: Fields = {
    timestamp: "1700000000.123456",
    uuid: `"${UUID}"`,
    sid: "0",
    value: "21.5246",
    unit: '"°C"',
    ...fields,
  };
  const members = Object.entries(all).filter(([, text]) => text !== null);
  return `{${members.map(([name, text]) => `"${name}": ${text}`).join(", ")}}`;
}

/** The row of the message of {@linkcode message} without changes. */
const ROW = { time: "1700000000123456", uuid: UUID, sid: 0, value: "21.5246" };

const COMPACT = UUID.replaceAll("-", "");

/** A payload, and the differences of its row from {@linkcode ROW}. */
const ACCEPTED: Readonly<Record<string, [payload: string, row?: Partial<typeof ROW>]>> = {
  "a message as LabKraken sends it": [message()],
  "timestamp: an integer": [message({ timestamp: "1700000000" }), { time: "1700000000000000" }],
  "timestamp: a fraction with more than six digits": [
    message({ timestamp: "1700000000.1234561" }),
  ],
  "timestamp: negative": [message({ timestamp: "-0.5" }), { time: "-500000" }],
  "timestamp: zero": [message({ timestamp: "0" }), { time: "0" }],
  "timestamp: with an exponent": [message({ timestamp: "1.700000000123456e9" })],
  "timestamp: a numeric string": [message({ timestamp: '"1700000000.123456"' })],
  "timestamp: a negative numeric string": [message({ timestamp: '"-1.5"' }), { time: "-1500000" }],
  "timestamp: far in the future, where a double has no microseconds": [
    message({ timestamp: "99999999999.123457" }),
    { time: "99999999999123459" },
  ],
  "uuid: without hyphens": [message({ uuid: `"${COMPACT}"` })],
  "uuid: upper case": [message({ uuid: `"${UUID.toUpperCase()}"` })],
  "uuid: in braces": [message({ uuid: `"{${UUID}}"` })],
  "uuid: as a URN": [message({ uuid: `"urn:uuid:${UUID}"` })],
  "uuid: as a URN in upper case": [message({ uuid: `"URN:UUID:${UUID.toUpperCase()}"` })],
  "sid: missing": [message({ sid: null })],
  "sid: another integer": [message({ sid: "5" }), { sid: 5 }],
  "sid: the largest": [message({ sid: "2147483647" }), { sid: 2147483647 }],
  "sid: negative": [message({ sid: "-1" }), { sid: -1 }],
  "value: an integer": [message({ value: "21" }), { value: "21" }],
  "value: with an exponent": [message({ value: "-2.5e-3" }), { value: "-0.0025" }],
  "value: minus zero": [message({ value: "-0.0" }), { value: "-0" }],
  "value: true": [message({ value: "true" }), { value: "1" }],
  "value: false": [message({ value: "false" }), { value: "0" }],
  "value: NaN": [message({ value: "NaN" }), { value: "NaN" }],
  "value: Infinity": [message({ value: "Infinity" }), { value: "Infinity" }],
  "value: -Infinity": [message({ value: "-Infinity" }), { value: "-Infinity" }],
  "others: nested 99 levels deep in the object": [
    message({ unit: "[".repeat(99) + "]".repeat(99) }),
  ],
  "timestamp: the first second of the year 1": [
    message({ timestamp: "-62135596800" }),
    { time: "-62135596800000000" },
  ],
  "timestamp: seven decimals, as Python computes it": [
    message({ timestamp: "1772546868.1544044" }),
    { time: "1772546868154404" },
  ],
  "a byte-order mark": [`\ufeff${message()}`],
  "others: missing": [message({ unit: null })],
  "others: of any kind": [message({ unit: '{"NaN": [null, "NaN", NaN]}', x: "[]" })],
  "fields in another order, with white space": [
    `\r\n\t{ "value":21.5246,"sid":0 ,"uuid":"${UUID}","timestamp":1700000000.123456 }\n`,
  ],
  "escaped characters in names and values": [
    message({ uuid: `"\\u0063${UUID.slice(1)}"` }).replace('"value"', '"\\u0076alue"'),
  ],
  "the same field twice: the last one counts": [message().replace("{", '{"value": 1, "sid": 9, ')],
};

/** A payload, and the reason in the log. */
const REJECTED: Readonly<Record<string, [payload: string | Uint8Array, reason: RegExp]>> = {
  "timestamp: missing": [message({ timestamp: null }), /timestamp is missing/],
  "timestamp: null": [message({ timestamp: "null" }), /timestamp is null/],
  "timestamp: true": [message({ timestamp: "true" }), /timestamp is a boolean/],
  "timestamp: NaN": [message({ timestamp: "NaN" }), /timestamp is 'NaN', not a finite/],
  "timestamp: Infinity": [message({ timestamp: "-Infinity" }), /'-Infinity', not a finite/],
  "timestamp: too large for a double": [message({ timestamp: "1e400" }), /not a finite/],
  "timestamp: not a number in a string": [
    message({ timestamp: '"today"' }),
    /'today', not a finite/,
  ],
  "timestamp: an empty string": [message({ timestamp: '""' }), /timestamp is '', not a finite/],
  "timestamp: hexadecimal in a string": [message({ timestamp: '"0x10"' }), /not a finite/],
  "timestamp: in milliseconds": [
    message({ timestamp: "1700000000123" }),
    /looks like milliseconds/,
  ],
  "timestamp: in milliseconds in a string": [
    message({ timestamp: '"1700000000123"' }),
    /looks like milliseconds/,
  ],
  "timestamp: before the year 1": [message({ timestamp: "-62135596801" }), /years 1 to 9999/],
  "timestamp: in the year 10000": [message({ timestamp: "253402300800" }), /years 1 to 9999/],
  "timestamp: beyond all dates": [message({ timestamp: "1e300" }), /years 1 to 9999/],
  "uuid: missing": [message({ uuid: null }), /uuid is missing/],
  "uuid: a number": [message({ uuid: "1" }), /uuid is a number, not a string/],
  "uuid: too short": [message({ uuid: `"${UUID.slice(1)}"` }), /not a UUID/],
  "uuid: with another letter": [message({ uuid: `"g${UUID.slice(1)}"` }), /not a UUID/],
  "uuid: with an unmatched brace": [message({ uuid: `"{${UUID}"` }), /not a UUID/],
  "uuid: empty": [message({ uuid: '""' }), /uuid is '', which is not a UUID/],
  "sid: a fraction": [message({ sid: "0.5" }), /sid is '0.5', not an integer/],
  "sid: a string": [message({ sid: '"0"' }), /sid is a string, not an integer/],
  "sid: null": [message({ sid: "null" }), /sid is null, not an integer/],
  "sid: too large": [message({ sid: "2147483648" }), /outside the range of the integer column/],
  "sid: NaN": [message({ sid: "NaN" }), /sid is 'NaN'/],
  "value: missing": [message({ value: null }), /value is missing/],
  "value: null": [message({ value: "null" }), /value is null, not a number/],
  "value: a string": [message({ value: '"21.5"' }), /value is a string, not a number/],
  "value: an object": [message({ value: "{}" }), /value is an object, not a number/],
  "value: an array": [message({ value: "[1]" }), /value is an array, not a number/],
  "value: too large": [message({ value: "1e309" }), /outside the range of the double precision/],
  "not JSON": ["21.5 °C", /not JSON/],
  "JSON cut off": [message().slice(0, -1), /not JSON/],
  "JSON with something behind it": [`${message()}}`, /not JSON/],
  "a bare NaN": ["NaN", /the payload is a number, not a JSON object/],
  "an array": [`[${message()}]`, /the payload is an array, not a JSON object/],
  "a string": ['"text"', /the payload is a string, not a JSON object/],
  "null": ["null", /the payload is null, not a JSON object/],
  "an empty object": ["{}", /timestamp is missing/],
  "empty": ["", /the payload is empty/],
  "white space": [" \n", /not JSON/],
  "not UTF-8": [
    Uint8Array.from([...new TextEncoder().encode(message()), 0xff]),
    /not UTF-8\. Payload: 0x7b22/,
  ],
  "binary": [new Uint8Array(300), /not JSON/],
  "1 MB long": [message({ unit: `"${"x".repeat(1e6)}"` }), /\d{6,} bytes, more than .* allowed/],
  "nested 100 levels deep in the object": [
    message({ unit: "[".repeat(100) + "]".repeat(100) }),
    /nested deeper than 100/,
  ],
  "nested 30,000 levels deep, with a literal of Python's": [
    message({ value: "NaN", unit: "[".repeat(30_000) + "]".repeat(30_000) }),
    /nested deeper than 100/,
  ],
  "nested 30,000 levels deep, and not closed": [
    message({ unit: "[".repeat(30_000) }),
    /nested deeper than 100/,
  ],
  "its own prototype instead of fields": [
    `{"__proto__": ${message()}}`,
    /timestamp is missing/,
  ],
};

Deno.test("each accepted form of a reading is stored as its row", async (t) => {
  const database = await createDatabase();
  await using broker = await startBroker();
  await createSession(broker);
  await using logger = startLogger(loggerEnv({ database, broker }));
  for (const [name, [payload, differences]] of Object.entries(ACCEPTED)) {
    await t.step(name, async () => {
      await publishPayloads(broker, [payload]);
      assert.deepEqual(await takeRow(database), { ...ROW, ...differences });
    });
  }
  assert.equal((await stopCleanly(logger)).stored, Object.keys(ACCEPTED).length);
  assert.deepEqual([...linesOf(logger, "WARNING"), ...linesOf(logger, "ERROR")], []);
});

Deno.test("each invalid payload is rejected with its reason, and the next reading is stored", async (t) => {
  const database = await createDatabase();
  await using broker = await startBroker();
  await createSession(broker);
  const env = loggerEnv({ database, broker });
  const rows = Object.entries(REJECTED);
  // A logger logs ten rejections a minute, so every ten payloads get a new logger.
  for (let from = 0; from < rows.length; from += 10) {
    await using logger = startLogger(env);
    const part = rows.slice(from, from + 10);
    for (const [index, [name, [payload, reason]]] of part.entries()) {
      await t.step(name, async () => {
        const topic = `sensors/bad/${index}`;
        // Aedes cannot handle messages of more than about 200 KB.
        const sent = broker.kind === "aedes" ? payload.slice(0, 150_000) : payload;
        await publishPayloads(broker, [sent], { topic });
        const line = await logger.waitForLine(`Rejected a message on '${topic}': `);
        assert.match(line, / WARNING +Rejected a message on .* Payload: /);
        assert.match(line, reason);
        assert.ok(line.length < 2000, `the line has ${line.length} characters`);
        await publishPayloads(broker, [message()]);
        assert.deepEqual(await takeRow(database), ROW);
      });
    }
    const counts = await stopCleanly(logger);
    assert.deepEqual([counts.rejected, counts.stored], [part.length, part.length]);
  }
});

Deno.test("a flood of 20,000 bad messages neither stops good ones nor floods the log", async () => {
  const database = await createDatabase();
  await using broker = await startBroker();
  await createSession(broker);
  await using logger = startLogger(loggerEnv({ database, broker }));
  await logger.waitForLine("Connected to MQTT broker");
  const random = createRandom(3);
  const bad = Object.values(REJECTED).map(([payload]) => payload).filter(({ length }) =>
    length < 999
  );
  const payloads = Array.from(
    { length: 22_000 },
    (_, index) =>
      index % 11 === 10
        ? message({ timestamp: String(index), value: String(index) })
        : bad[Math.floor(random() * bad.length)] ?? "",
  );
  await publishPayloads(broker, payloads, { qos: 1 });
  await waitUntil(async () => await database.countReadings() === 2000, {
    timeoutMs: 180_000,
    what: "the 2000 good readings",
  });
  const [row] = await database.query(
    "SELECT count(*)::int, bool_and(extract(epoch FROM time) = value) AS right FROM sensor_data",
  );
  assert.deepEqual(row, { count: 2000, right: true });
  const counts = await stopCleanly(logger);
  assert.deepEqual([counts.received, counts.stored, counts.rejected], [22_000, 2000, 20_000]);
  const warnings = linesOf(logger, "WARNING");
  assert.ok(warnings.length < 60, `${warnings.length} warnings`);
  const written = warnings.filter((line) => line.startsWith("Rejected")).length;
  const suppressed = warnings.map((line) =>
    /^Suppressed (\d+) more warnings? about rejected/.exec(line)?.[1] ?? "0"
  );
  assert.equal(suppressed.reduce((sum, count) => sum + Number(count), written), 20_000);
});

async function createDatabase(): Promise<TestDatabase> {
  const database = await postgres.createDatabase();
  await database.registerSensors([0, 5, 2147483647, -1].map((sid) => ({ uuid: UUID, sid })));
  return database;
}

/** Waits for the only row of the table, and deletes it. */
async function takeRow(database: TestDatabase): Promise<unknown> {
  return await waitUntil(async () => {
    const [row] = await database.query(`
      WITH taken AS (DELETE FROM sensor_data RETURNING *)
      SELECT (extract(epoch FROM time) * 1000000)::bigint::text AS time, uuid, sensor_sid AS sid,
        value::text
      FROM taken JOIN sensors ON id = sensor_id`);
    return row;
  }, { what: "a row in the table" });
}

Deno.test("run leaves messages with the broker when those in memory have 64 MB", async () => {
  const database = await postgres.createDatabase();
  // No real broker: Aedes never finishes receiving a message of that size.
  await using broker = await startScriptedBroker();
  const count = 120;
  const payload = " ".repeat(1_000_000);
  const env = loggerEnv({ database, broker }, { APPLICATION_LOG_LEVEL: "DEBUG" });
  await postgres.server.stop();
  await using logger = startLogger(env);
  const received = (): number => logger.lines.filter((line) => line.includes("Received on")).length;
  try {
    const connection = await broker.subscribed(0);
    for (let id = 1; id <= count; id++) connection.publish(id, payload, { qos: 1 });
    await waitUntil(() => received() >= 64, { what: "64 MB in memory", timeoutMs: 180_000 });
    // Time for more messages to arrive, if there were no limit.
    await delay(500);
    assert.ok(received() <= 80, `${received()} MB in memory`);
  } finally {
    await postgres.server.start();
  }
  await waitUntil(() => received() >= count, { what: "all messages", timeoutMs: 180_000 });
  assert.equal((await stopCleanly(logger)).rejected, count);
});
