/** Servers on free ports. */

import type { AddressInfo, Server } from "node:net";

/** Starts a server on a free port of `host` and returns the port. */
export async function listen(server: Server, host: string): Promise<number> {
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, host, resolve);
  });
  return (server.address() as AddressInfo).port;
}
