/**
 * The language of the project: no text uses a phrase for which plain technical English has a better
 * one. The check covers code, comments, pages and configuration, also across line breaks.
 */
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../..", import.meta.url)).replace(/\/$/, "");

/** Texts by others, generated texts, and this file, which must name the phrases. */
const LEFT_OUT: readonly string[] = [
  ...["LICENSE", "deno.lock", "CHANGELOG.md", "tests/output/", "tests/project/language_test.ts"],
  ...[".git/", "node_modules/"],
];

/** Types of files that contain text. */
const TEXT =
  /\.(?:ts|js|html|css|md|ya?ml|json|sql|sh|service|conf|env|txt)$|(?:^|\/)(?:run|acl|Dockerfile|\.\w+ignore)$/;

/** Phrases as regular expressions, with a blank for any white space, and what to write instead. */
const PHRASES: readonly (readonly [phrase: string, instead: string])[] = [
  ["(?:tells?|told|telling) of", "log, report, notify"],
  ["(?:is|are|was|were|be|been) told(?! apart| of)", "is notified, receives"],
  ["in hand", "in flight, unacknowledged"],
  ["for want of", "because … is missing"],
  ["whoever", "the caller, the operator"],
  ["(?:stands?|stood|standing) still", "is stuck"],
  ["anew", "again"],
  ["to be called", "name the caller's duty: call it …"],
  ["takes? no more", "does not accept"],
  ["(?:what|nothing) comes in", "new messages, no new messages"],
  ["mend(?:s|ed|ing)?", "fix, correct"],
  ["whatever ends", "name what ends"],
  ["does well without", "name the state"],
  ["takes? note of", "record"],
  ["looks? whether", "check whether"],
  ["(?:one|two|between) looks?", "check, poll"],
  ["of (?:its|their) own", "separate, own"],
  ["somebody", "a client, the operator"],
  ["where (?:there (?:is|are) none|it is not set)", "if none, if it is not set"],
  ["(?:is|are|was|were|be|been) away", "is unavailable, is disconnected"],
  ["(?:is|are|was|were) not there", "does not exist, is missing"],
  ["in the course of", "during"],
  ["for ever", "forever"],
  ["catalogues?", "catalog"],
  ["(?:un)?authoris(?:e|ed|es|ing|ation)", "authorize"],
  ["recognis(?:e|ed|es|ing)", "recognize"],
  ["synchronis(?:e|ed|es|ing|ation)", "synchronize"],
  ["behaviours?", "behavior"],
  ["colours?", "color"],
  ["licences?", "license"],
  ["misspelt", "misspelled"],
];

/**
 * The text that may separate two words: white space, with a comment sign on a new line, or the end of
 * a string and the start of the string that is appended to it.
 */
const GAP = String.raw`(?:\s+(?:(?:\*|//|#|--|>)\s+)?|\s*["'\x60]\s*\+\s*["'\x60]\s*)`;

const PATTERNS = PHRASES.map(([phrase, instead]) => ({
  pattern: new RegExp(`\\b(?:${phrase.replaceAll(" ", GAP)})\\b`, "gi"),
  instead,
}));

/** The findings in a text, each with the number of its line: `3: 'in hand' (write: in flight)`. */
function findPhrases(text: string): string[] {
  return PATTERNS.flatMap(({ pattern, instead }) =>
    [...text.matchAll(pattern)].map(({ 0: found, index }) => {
      const line = text.slice(0, index).split("\n").length;
      return `${line}: '${found.replaceAll(/\s+/g, " ")}' (write: ${instead})`;
    })
  );
}

function startsWithAny(path: string, starts: readonly string[]): boolean {
  return starts.some((start) => path.startsWith(start));
}

/** The paths of all texts of the project, below its root. */
function* listTexts(folder = ""): Generator<string> {
  for (const { name, isDirectory, isFile } of Deno.readDirSync(`${ROOT}/${folder}`)) {
    const path = `${folder}${name}${isDirectory ? "/" : ""}`;
    if (startsWithAny(path, LEFT_OUT)) continue;
    if (isDirectory) yield* listTexts(path);
    else if (isFile && TEXT.test(path)) yield path;
  }
}

Deno.test("no text uses a phrase for which plain English has a better one", () => {
  const texts = [...listTexts()].sort();
  for (const path of ["README.md", "main.ts", "deploy/systemd/kraken-logger.service", ".ci/run"]) {
    assert.ok(texts.includes(path), `'${path}' is not checked`);
  }
  const findings = texts.flatMap((path) =>
    findPhrases(Deno.readTextFileSync(`${ROOT}/${path}`)).map((finding) => `${path}:${finding}`)
  );
  assert.equal(findings.join("\n"), "");
});

Deno.test("a phrase is found across line breaks, comment signs and joined strings", () => {
  const cases: [string, string[]][] = [
    ["a\nThe outage is Told of.", ["2: 'Told of'"]],
    ["/**\n * Messages in\n * hand.\n */", ["2: 'in * hand'"]],
    ["// For want\n  // of a name", ["1: 'For want // of'"]],
    ["# whoever\n# reads", ["1: 'whoever'"]],
    ['"it stands " +\n  "still"', ["1: 'stands \" + \"still'"]],
    ["`takes no ` + `more`", ["1: 'takes no ` + `more'"]],
    ["We recommend whatever is in handling, or canewood.", []],
    ["in\n\n * hand", ["1: 'in * hand'"]],
  ];
  for (const [text, expected] of cases) {
    const found = findPhrases(text).map((finding) => finding.replace(/ \(write: .*/, ""));
    assert.deepEqual(found, expected, text);
  }
});
