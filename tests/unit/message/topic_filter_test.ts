/** Topic filters, tested with the examples of MQTT 5.0 section 4.7 and by their definition. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { filtersThatMatch, isMatch } from "../../../lib/message/topic_filter.ts";

const EXAMPLES: Readonly<Record<string, { matches: string[]; differs: string[] }>> = {
  "sport/tennis/player1/#": {
    matches: [
      "sport/tennis/player1",
      "sport/tennis/player1/ranking",
      "sport/tennis/player1/score/wimbledon",
    ],
    differs: ["sport/tennis/player2", "sport/tennis", "sport/tennis/player10"],
  },
  "sport/#": { matches: ["sport", "sport/", "sport/a/b"], differs: ["sports", "/sport"] },
  "#": { matches: ["a", "/", "a/b/c"], differs: ["$SYS", "$SYS/broker/version"] },
  "sport/tennis/+": {
    matches: ["sport/tennis/player1", "sport/tennis/"],
    differs: ["sport/tennis/player1/ranking", "sport/tennis"],
  },
  "sport/+": { matches: ["sport/"], differs: ["sport"] },
  "+": { matches: ["finance", ""], differs: ["/finance", "$SYS"] },
  "+/+": { matches: ["/finance", "a/b"], differs: ["a", "a/b/c"] },
  "/+": { matches: ["/finance"], differs: ["finance"] },
  "+/tennis/#": { matches: ["a/tennis", "a/tennis/b"], differs: ["a/b/tennis", "$SYS/tennis"] },
  "+/monitor/Clients": { matches: ["a/monitor/Clients"], differs: ["$SYS/monitor/Clients"] },
  "$SYS/#": { matches: ["$SYS/a", "$SYS"], differs: ["SYS/a"] },
  "$SYS/monitor/+": { matches: ["$SYS/monitor/Clients"], differs: ["$SYS/monitor"] },
  "ACCOUNTS": { matches: ["ACCOUNTS"], differs: ["Accounts", "/ACCOUNTS", "ACCOUNTS/"] },
  "a//b": { matches: ["a//b"], differs: ["a/b"] },
  "$share/group/sensors/+": { matches: ["sensors/a"], differs: ["group/sensors/a", "sensors"] },
  "$share/group/#": { matches: ["a/b"], differs: ["$SYS/a"] },
};

Deno.test("filters match as the examples of the specification say", () => {
  for (const [filter, { matches, differs }] of Object.entries(EXAMPLES)) {
    for (const topic of matches) assert.ok(isMatch(filter, topic), `${filter} on '${topic}'`);
    for (const topic of differs) assert.ok(!isMatch(filter, topic), `${filter} not '${topic}'`);
  }
});

const level = fc.constantFrom("a", "b", "sensors", "", "$SYS", "°C");
const topics = fc.array(level, { minLength: 1, maxLength: 6 }).map((levels) => levels.join("/"));

Deno.test("every filter made from a topic that matches it is among the candidates", () => {
  const choices = fc.array(fc.boolean(), { minLength: 6, maxLength: 6 });
  const cut = fc.option(fc.nat({ max: 6 }), { nil: undefined });
  fc.assert(
    fc.property(topics, choices, cut, (topic, plus, hashAt) => {
      const levels = topic.split("/");
      const replaced = levels.map((text, index) => plus[index] ? "+" : text);
      const filter = (hashAt === undefined ? replaced : [...replaced.slice(0, hashAt), "#"]).join(
        "/",
      );
      fc.pre(isMatch(filter, topic));
      assert.ok(filtersThatMatch(topic).includes(filter), `${filter} for ${topic}`);
    }),
    { numRuns: 2_000 },
  );
});

Deno.test("every candidate matches, and none is listed twice", () => {
  fc.assert(fc.property(topics, (topic) => {
    const filters = filtersThatMatch(topic);
    assert.ok(filters.every((filter) => isMatch(filter, topic)));
    assert.equal(new Set(filters).size, filters.length);
    assert.ok(filters.includes(topic));
  }));
  assert.equal(filtersThatMatch("a/b/c/d/e/f").length, 2 ** 8 - 1 - 2 ** 6);
});

Deno.test("a topic of very many levels has few candidates", () => {
  const topic = Array.from({ length: 100 }, (_, index) => `l${index}`).join("/");
  const filters = filtersThatMatch(topic);
  assert.equal(filters.length, 102);
  assert.ok(filters.includes("#") && filters.includes("l0/#") && filters.includes(topic));
});
