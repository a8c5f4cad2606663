/** The address of a server. */

/** A host and a port. `host` has no brackets, even if it is an IPv6 address. */
export interface Endpoint {
  readonly host: string;
  readonly port: number;
}

/** `'host:port'`, with brackets around IPv6 addresses. */
export function describeEndpoint({ host, port }: Endpoint): string {
  return `'${host.includes(":") ? `[${host}]` : host}:${port}'`;
}
