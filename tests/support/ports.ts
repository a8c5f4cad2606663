/**
 * Free TCP ports for the services that the tests start.
 */

/** The only address the test services listen on. */
export const LOOPBACK = "127.0.0.1";

// Below Linux's range of ephemeral ports (32768 and up). From within that range, a client that
// keeps connecting to a service that is down would sooner or later be given the very port it
// connects to as its own, and be connected to itself; and the service could not come back.
const FIRST_PORT = 15_000;
const LAST_PORT = 32_000;

/**
 * Returns a TCP port that nobody listens on at this moment. Somebody else may take it before the
 * caller does, so that services which start on it must be ready to try another one.
 *
 * @throws {Error} when a hundred random ports in a row were taken.
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
  throw new Error(`Finding a free port between ${FIRST_PORT} and ${LAST_PORT}: all taken`);
}

/** Says whether somebody accepts TCP connections on the port. */
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
