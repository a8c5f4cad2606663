/**
 * Free TCP ports for the services that the tests start.
 */

/** The only address that the services of the tests listen on. */
export const LOOPBACK = "127.0.0.1";

// Below Linux's range of ephemeral ports (32768 and up). A client that keeps connecting to a stopped
// service on an ephemeral port would sooner or later get that port as its own, and connect to itself.
// Then the service could not start again.
const FIRST_PORT = 15_000;
const LAST_PORT = 32_000;

/**
 * Returns a TCP port that no program listens on at this moment. Another program may use it before the
 * caller does, so a service that fails to start on it must try another one.
 *
 * @throws {Error} when a hundred random ports in a row were in use.
 */
export function findFreePort(): number {
  for (let attempt = 0; attempt < 100; attempt++) {
    const port = FIRST_PORT + Math.floor(Math.random() * (LAST_PORT - FIRST_PORT));
    try {
      Deno.listen({ hostname: LOOPBACK, port }).close();
      return port;
    } catch (error) {
      if (!(error instanceof Deno.errors.AddrInUse)) {
        throw error;
      }
    }
  }
  throw new Error(`Finding a free port between ${FIRST_PORT} and ${LAST_PORT}: all are in use`);
}

/** Whether a program accepts TCP connections on the port. */
export async function isListening(port: number, hostname: string = LOOPBACK): Promise<boolean> {
  try {
    (await Deno.connect({ hostname, port })).close();
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.ConnectionRefused) {
      return false;
    }
    throw error;
  }
}
