/** The manifests for Kubernetes: valid by its schemas, consistent, and with a valid configuration. */
import assert from "node:assert/strict";
import { ConfigMap, Namespace, Secret, Service } from "kubernetes-models/v1";
import { StatefulSet } from "kubernetes-models/apps/v1";
import { NetworkPolicy } from "kubernetes-models/networking.k8s.io/v1";
import { PodDisruptionBudget } from "kubernetes-models/policy/v1";
import { parseAllDocuments } from "yaml";
import { parseConfig } from "../../lib/config/config.ts";
import { readDocument } from "../support/documents.ts";

const FOLDER = new URL("../../deploy/kubernetes/", import.meta.url);

// deno-lint-ignore no-explicit-any
type Manifest = any;

function read(name: string): Manifest[] {
  const documents = parseAllDocuments(Deno.readTextFileSync(new URL(name, FOLDER)));
  return [...documents].map((document) => {
    assert.deepEqual([...document.errors, ...document.warnings], []);
    return document.toJS();
  });
}

const MODELS: Readonly<Record<string, new (data: Manifest) => { validate(): void }>> = {
  ConfigMap,
  Namespace,
  NetworkPolicy,
  PodDisruptionBudget,
  Secret,
  Service,
  StatefulSet,
};

const [kustomization] = read("kustomization.yaml");
const manifests = [...kustomization.resources, "secret.example.yaml"].flatMap(read);

function find(kind: string): Manifest {
  const found = manifests.filter((manifest) => manifest.kind === kind);
  assert.equal(found.length, 1, `there are ${found.length} manifests of the kind ${kind}`);
  return found[0];
}

const pod = find("StatefulSet").spec.template;
const [container] = pod.spec.containers;

Deno.test("every manifest is valid by the schema of its kind", () => {
  assert.ok(manifests.length >= 7);
  for (const manifest of manifests) {
    const Model = MODELS[manifest.kind];
    assert.ok(Model, manifest.kind);
    new Model(manifest).validate();
    const { apiVersion } = new Model(manifest) as unknown as Manifest;
    assert.equal(manifest.apiVersion, apiVersion);
  }
  // The validation checks the schemas, and not only the names.
  const broken = structuredClone(find("StatefulSet"));
  broken.spec.replicas = "two";
  assert.throws(() => new StatefulSet(broken).validate());
});

Deno.test("selectors, ports, volumes, claims and names fit together", () => {
  const { labels } = pod.metadata;
  const set = find("StatefulSet");
  const constraint = pod.spec.topologySpreadConstraints[0];
  for (
    const selector of [
      set.spec.selector.matchLabels,
      find("Service").spec.selector,
      find("PodDisruptionBudget").spec.selector.matchLabels,
      find("NetworkPolicy").spec.podSelector.matchLabels,
      constraint.labelSelector.matchLabels,
    ]
  ) assert.deepEqual(selector, labels);
  assert.equal(set.spec.serviceName, find("Service").metadata.name);
  const ports = container.ports.map(({ name }: Manifest) => name);
  const asked = [
    ...["startupProbe", "livenessProbe", "readinessProbe"].map((probe) =>
      container[probe].httpGet.port
    ),
    find("Service").spec.ports[0].targetPort,
    find("NetworkPolicy").spec.ingress[0].ports[0].port,
  ];
  for (const port of asked) assert.ok(ports.includes(port), port);
  const volumes = [
    ...pod.spec.volumes.map(({ name }: Manifest) => name),
    ...set.spec.volumeClaimTemplates.map(({ metadata }: Manifest) => metadata.name),
  ];
  assert.deepEqual(container.volumeMounts.map(({ name }: Manifest) => name).sort(), volumes.sort());
  assert.equal(container.envFrom[0].configMapRef.name, find("ConfigMap").metadata.name);
  assert.equal(pod.spec.volumes[0].secret.secretName, find("Secret").metadata.name);
  assert.equal(container.image, kustomization.images[0].name);
  assert.ok(!kustomization.resources.includes("secret.example.yaml"));
});

Deno.test("the settings are a valid configuration of the logger, and no name is misspelled", () => {
  const own = container.env.map(({ name, value, valueFrom }: Manifest) => [
    name,
    value ?? { "metadata.name": "kraken-logger-1" }[valueFrom.fieldRef.fieldPath as string],
  ]);
  const mount = container.volumeMounts.find(({ name }: Manifest) => name === "secrets").mountPath;
  const secret = find("Secret").stringData;
  const config = parseConfig({ ...find("ConfigMap").data, ...Object.fromEntries(own) }, (path) => {
    assert.ok(path.startsWith(`${mount}/`), path);
    return secret[path.slice(mount.length + 1)] ?? assert.fail(path);
  });
  assert.deepEqual(config.warnings, []);
  assert.equal(config.mqtt.clientId, "kraken-logger-1");
  assert.ok(config.mqtt.sharedGroup, "each reading would be delivered twice");
  assert.equal(config.database.password, "change-me");
  assert.equal(config.http?.port, container.ports[0].containerPort);
  assert.equal(config.http?.host, "0.0.0.0", "the probes come from outside the pod");
  assert.ok(
    container.volumeMounts.some(({ mountPath }: Manifest) => mountPath === config.spool?.directory),
  );
  const claim = find("StatefulSet").spec.volumeClaimTemplates[0].spec.resources.requests.storage;
  const claimed = Number(/^(\d+)Gi$/.exec(claim)?.[1]) * 2 ** 30;
  assert.ok(claimed > (config.spool?.maxBytes ?? Infinity));
});

Deno.test("the commands of the page name the objects of the manifests", () => {
  const page = readDocument("docs/kubernetes.md");
  const { name } = find("StatefulSet").metadata;
  const commands = [...page.matchAll(/^(?:kubectl|mosquitto_sub) (?:.*\\\n)*.*$/gm)]
    .map(([text]) => text);
  assert.ok(commands.length >= 10);
  const all = commands.join("\n");
  for (const [, namespace] of all.matchAll(/--namespace (\S+)/g)) {
    assert.equal(namespace, find("Namespace").metadata.name);
  }
  for (const [, set] of all.matchAll(/statefulset\/(\S+)/g)) assert.equal(set, name);
  // The client id is the name of the pod.
  const members = [...all.matchAll(/(?:pod\/|port-forward |-i )(\S+)/g)].map(([, pod]) => pod);
  assert.ok(members.length >= 4);
  for (const member of members) assert.match(member ?? "", new RegExp(`^${name}-\\d$`));
  const [, secret] = /secret generic (\S+)/.exec(all) ?? [];
  assert.equal(secret, find("Secret").metadata.name);
  for (const key of Object.keys(find("Secret").stringData)) {
    assert.ok(all.includes(`=${key}=`), key);
  }
  // A variable set directly overrides that of the map, and an empty one counts as not set.
  const [, variable = "", value] = /set env \S+ (\w+)=(.*)$/m.exec(all) ?? [];
  assert.ok(variable in find("ConfigMap").data, variable);
  assert.equal(value, "");
  assert.ok(all.includes(`${variable}-`), "the variable is not removed again");
});

Deno.test("the pod has no privileges, and time to stop", () => {
  assert.equal(pod.spec.automountServiceAccountToken, false);
  assert.equal(pod.spec.enableServiceLinks, false);
  assert.ok(pod.spec.terminationGracePeriodSeconds > 20);
  const { runAsNonRoot, runAsUser, fsGroup, seccompProfile } = pod.spec.securityContext;
  assert.deepEqual([runAsNonRoot, runAsUser, fsGroup], [true, 65532, 65532]);
  assert.equal(seccompProfile.type, "RuntimeDefault");
  assert.deepEqual(container.securityContext, {
    allowPrivilegeEscalation: false,
    readOnlyRootFilesystem: true,
    capabilities: { drop: ["ALL"] },
  });
  // An unavailable database must not restart the logger.
  assert.equal(container.livenessProbe.httpGet.path, "/healthz");
  assert.equal(container.readinessProbe.httpGet.path, "/readyz");
});
