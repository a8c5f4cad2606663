/** Free ports. */

import type { AddressInfo, Server } from "node:net";

/** Lets a server listen at a free port of `host`, and returns the port. */
export async function listen(server: Server, host: string): Promise<number> {
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, host, resolve);
  });
  return (server.address() as AddressInfo).port;
}
