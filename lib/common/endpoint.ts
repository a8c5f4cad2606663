/** Hosts with ports. */

/** A host and port to connect to. `host` carries no brackets, IPv6 literals included. */
export interface Endpoint {
  readonly host: string;
  readonly port: number;
}

/** `'host:port'`, with brackets around IPv6 addresses. */
export function describeEndpoint({ host, port }: Endpoint): string {
  return `'${host.includes(":") ? `[${host}]` : host}:${port}'`;
}
