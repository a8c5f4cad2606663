/** The statements that create the tables and grant privileges to the logger's role. */
import assert from "node:assert/strict";
import { formatScript, grantStatements, schemaStatements } from "../../../lib/database/schema.ts";

Deno.test("the schema has both tables with the unique keys, and may be run again", () => {
  const statements = schemaStatements({ timescale: false });
  assert.equal(statements.length, 2);
  assert.ok(statements.every((statement) => /^CREATE TABLE IF NOT EXISTS /.test(statement)));
  assert.match(statements[0] ?? "", /UNIQUE \(uuid, sensor_sid\)/);
  assert.match(statements[1] ?? "", /REFERENCES sensors \(id\)[^]*UNIQUE \(sensor_id, time\)/);
});

Deno.test("a hypertable is created only with --timescale, after the tables", () => {
  assert.ok(!schemaStatements({ timescale: false }).join().includes("timescale"));
  const statements = schemaStatements({ timescale: true });
  assert.deepEqual(statements.slice(0, 2), schemaStatements({ timescale: false }));
  assert.match(statements[2] ?? "", /^CREATE EXTENSION IF NOT EXISTS timescaledb$/);
  assert.match(
    statements[3] ?? "",
    /create_hypertable\('sensor_data', 'time',\s+chunk_time_interval => interval '1 day',\s+if_not/,
  );
  assert.match(
    statements[4] ?? "",
    /SET \(\s+timescaledb.compress,\s+timescaledb.compress_segmentby = 'sensor_id',\s+timescaledb.compress_orderby = 'time DESC'\s+\);/,
  );
  assert.match(
    statements[4] ?? "",
    /add_compression_policy\(\s+'sensor_data', interval '7 days', if/,
  );
});

Deno.test("a role with any name gets exactly the privileges that the logger needs", () => {
  assert.deepEqual(grantStatements("kraken"), [
    'GRANT SELECT, INSERT ON sensor_data TO "kraken"',
    'GRANT SELECT ON sensors TO "kraken"',
  ]);
  assert.match(grantStatements('a"; DROP TABLE x; --')[0] ?? "", / TO "a""; DROP TABLE x; --"$/);
});

Deno.test("a script ends every statement", () => {
  assert.equal(formatScript(["A", "B\n  C"]), "A;\n\nB\n  C;\n");
});
