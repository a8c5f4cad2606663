import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import {
  isKeyOf,
  ruleForCertificates,
  ruleForKey,
  systemAuthorities,
} from "../../../lib/common/certificates.ts";
import { CertificateAuthority } from "../../support/certificates.ts";
import { withTemporaryDirectory } from "../../support/temporary_directory.ts";

const authority = new CertificateAuthority();
const ONE = authority.issue({ hosts: ["lab"] });
const OTHER = authority.issue({ hosts: ["lab"] });

/** SEC 1 form as `openssl ecparam -name prime256v1 -genkey` writes it: Deno 2.6 omits the curve. */
const SEC1_KEY = `-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIDF1cmBekNUKMYfGm/dRjbPTriqibg0t769tkbh450mcoAoGCCqGSM49
AwEHoUQDQgAEBm5enuQJO0TqGMYATGlWLXs9K05iesWDvZHAfB0HxD3oDYpOSlng
ciAr3QV/D6WS3FNpkPx6ULg/Hj45aV7Fuw==
-----END EC PRIVATE KEY-----
`;

/** Damages a PEM text in the middle, as an incomplete copy does. */
function damage(pem: string): string {
  return pem.replace(/[A-Za-z0-9+/]{64}\r?\n/, "");
}

Deno.test("a certificate file may contain comments, keys and CRLF line ends", () => {
  const chain = `# The server\n${ONE.cert}\n# and who signed it\n${authority.cert}`;
  for (const pem of [ONE.cert, chain, ONE.key + ONE.cert, chain.replaceAll("\n", "\r\n")]) {
    assert.equal(ruleForCertificates(pem), undefined, pem);
  }
});

Deno.test("an unreadable certificate is reported with its number", () => {
  for (const pem of ["", "secret\n", ONE.key]) {
    assert.equal(ruleForCertificates(pem), "must name a PEM file with certificates");
  }
  for (const broken of [ONE.cert.slice(0, 300), damage(ONE.cert), ONE.cert.replace("MII", "MIJ")]) {
    assert.match(ruleForCertificates(broken) ?? "", /: certificate 1 of 1 cannot be parsed$/);
    assert.match(
      ruleForCertificates(authority.cert + broken) ?? "",
      /certificate 2 of 2 cannot be parsed$/,
    );
    assert.match(
      ruleForCertificates(`${authority.cert}${broken}\n${OTHER.cert}`) ?? "",
      /certificate 2 of 3 cannot be parsed$/,
    );
  }
});

Deno.test("a private key may be in any PEM format, unless it is encrypted or damaged", () => {
  const { privateKey: rsa } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  const { privateKey: ec } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const forms = [
    rsa.export({ type: "pkcs1", format: "pem" }),
    rsa.export({ type: "pkcs8", format: "pem" }),
    SEC1_KEY,
    ec.export({ type: "pkcs8", format: "pem" }),
  ].map(String);
  for (const pem of [...forms, ONE.key]) {
    assert.equal(ruleForKey(pem), undefined, pem);
    assert.equal(ruleForKey(`${ONE.cert}\n${pem}`), undefined, pem);
    assert.match(ruleForKey(damage(pem)) ?? "", /: the key cannot be parsed$/, pem);
    assert.match(ruleForKey(pem.slice(0, -40)) ?? "", /: the key cannot be parsed$/, pem);
  }
  assert.equal(ruleForKey(ONE.cert), "must name a PEM file with a private key");
  const encrypted = ONE.key.replaceAll("RSA PRIVATE", "ENCRYPTED PRIVATE");
  assert.equal(ruleForKey(encrypted), "must name an unencrypted key");
});

Deno.test("isKeyOf rejects the key of another certificate", () => {
  assert.ok(isKeyOf(ONE.key, ONE.cert + authority.cert));
  assert.ok(isKeyOf(ONE.cert + ONE.key, ONE.key + ONE.cert));
  assert.equal(isKeyOf(OTHER.key, ONE.cert + authority.cert), false);
  assert.equal(isKeyOf(SEC1_KEY, ONE.cert), false);
});

Deno.test("the system's authorities come from SSL_CERT_FILE if it is readable", () => {
  using directory = withTemporaryDirectory();
  const path = `${directory.path}/authorities.pem`;
  const before = Deno.env.get("SSL_CERT_FILE");
  try {
    Deno.env.delete("SSL_CERT_FILE");
    const systems = systemAuthorities();
    Deno.env.set("SSL_CERT_FILE", path);
    assert.equal(systemAuthorities(), systems);
    Deno.writeTextFileSync(path, authority.cert);
    assert.equal(systemAuthorities(), authority.cert);
  } finally {
    if (before === undefined) Deno.env.delete("SSL_CERT_FILE");
    else Deno.env.set("SSL_CERT_FILE", before);
  }
});
