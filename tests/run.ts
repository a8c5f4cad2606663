/**
 * Runs the tests in one of two tiers, and prints at the end how many were left out, and why.
 *
 * ```sh
 * deno task test                      # the first tier
 * deno task test:all                  # everything
 * deno task test tests/unit/spool     # the given paths, of either tier
 * deno task test --filter=crash       # options go to `deno test`
 * ```
 */
import { LEFT_OUT_VARIABLE, summarizeLeftOut } from "./support/left_out.ts";
import { print } from "./support/output.ts";
import { TEMPLATES_VARIABLE } from "./support/postgres.ts";

/**
 * The first tier: all tests of parts, one test of the whole program for each guarantee, and the
 * demonstration. Tests that are not listed here belong to the second tier.
 */
const FIRST_TIER: readonly string[] = [
  ...["unit/", "project/", "support/"],
  // Nothing is lost: kills, crashes, lost sessions, bad rows, packet identifiers, the counts.
  "program/guarantee_test.ts",
  // Each reading is stored once and exactly, over MQTT 3.1.1 and 5.
  "program/delivery_test.ts",
  // The database stops, crashes, refuses, lacks tables or privileges.
  "program/database_test.ts",
  // The broker restarts, is unavailable, refuses, speaks an older version.
  "program/broker_test.ts",
  // The program ends in time and with the right status.
  "program/shutdown_test.ts",
  // Configuration, commands and their exit status.
  ...["program/command_line_test.ts", "program/configuration_test.ts", "program/start_test.ts"],
  "program/check_test.ts",
  // Secrets stay out of the log.
  "program/log_test.ts",
  "program/http_test.ts",
  "program/demo_test.ts",
];

const ROOT = new URL("../", import.meta.url);

/** Most tests wait for another process, so more tests than cores run at the same time. */
const JOBS_PER_CORE = 2;

async function runTests(args: readonly string[]): Promise<number> {
  const options = args.filter((arg) => arg.startsWith("-") && arg !== "--all");
  const named = args.filter((arg) => !arg.startsWith("-"));
  const tier = args.includes("--all") ? ["tests/"] : FIRST_TIER.map((path) => `tests/${path}`);
  const directory = Deno.makeTempDirSync({ prefix: "kraken-test-" });
  // PostgreSQL may run as another user.
  Deno.chmodSync(directory, 0o777);
  const leftOut = `${directory}/left_out`;
  Deno.writeTextFileSync(leftOut, "");
  // The tests receive Ctrl-C as well; this process ends after them.
  Deno.addSignalListener("SIGINT", () => {});
  try {
    const { code } = await new Deno.Command(Deno.execPath(), {
      args: [
        ...[
          "test",
          "--config",
          "tests/deno.json",
          "--allow-all",
          "--no-check",
          "--parallel",
          ...options,
        ],
        ...(named.length > 0 ? named : tier),
      ],
      env: {
        DENO_JOBS: Deno.env.get("DENO_JOBS") ??
          String(navigator.hardwareConcurrency * JOBS_PER_CORE),
        [LEFT_OUT_VARIABLE]: leftOut,
        [TEMPLATES_VARIABLE]: directory,
      },
      cwd: ROOT,
    }).spawn().status;
    for (const line of summarizeLeftOut(Deno.readTextFileSync(leftOut))) print(`${line}\n`);
    return code;
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

Deno.exit(await runTests(Deno.args));
