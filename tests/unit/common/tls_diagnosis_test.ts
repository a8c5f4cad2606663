import assert from "node:assert/strict";
import { describeTlsProblem } from "../../../lib/common/tls_diagnosis.ts";

function withCode(code: string, message = ""): Error {
  return Object.assign(new Error(message), { code });
}

/** Errors as observed with different versions of Deno, and the expected words. */
const HEARD: readonly (readonly [Error, RegExp])[] = [
  [new Error("invalid peer certificate: certificate expired: verification time 1"), /has expired/],
  [new Error("invalid peer certificate: certificate not valid yet: verif"), /not valid yet/],
  [
    new Error('invalid peer certificate: certificate not valid for name "localhost"'),
    /another host/,
  ],
  [new Error("invalid peer certificate: UnknownIssuer"), /not signed by .* trusted/],
  [new Error("invalid peer certificate: BadSignature"), /not signed by .* trusted/],
  [withCode("UNABLE_TO_VERIFY_LEAF_SIGNATURE"), /not signed by .* trusted/],
  [withCode("ERR_TLS_CERT_ALTNAME_INVALID"), /another host/],
  [new Error("received fatal alert: CertificateRequired"), /requires a client certificate/],
  [new Error("received fatal alert: UnknownCA"), /does not accept the client certificate/],
  [new Error("received fatal alert: CertificateExpired"), /does not accept the client certificate/],
  [
    withCode("ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION", "received fatal alert: ProtocolVersion"),
    /no TLS version or cipher in common/,
  ],
  [
    withCode("ERR_SSL_SSLV3_ALERT_HANDSHAKE_FAILURE", "received fatal alert: HandshakeFailure"),
    /no TLS version or cipher in common .*, or requires a client certificate/,
  ],
  [withCode("ERR_SSL_WRONG_VERSION_NUMBER", "received corrupt message"), /does not speak TLS/],
  [new Error("The server does not support SSL connections"), /does not speak TLS/],
];

Deno.test("TLS problems are put into words for every version of Deno", () => {
  for (const [error, words] of HEARD) assert.match(describeTlsProblem(error) ?? "", words);
});

Deno.test("other problems are not reported as TLS problems", () => {
  for (const error of [withCode("ECONNREFUSED"), new Error("no answer in time"), "text", null]) {
    assert.equal(describeTlsProblem(error), undefined);
  }
});
