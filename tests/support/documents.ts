/** The documents of the project, for the tests that compare them with the program. */
import { fileURLToPath } from "node:url";

/** The project's directory, without a slash at its end. */
export const ROOT: string = fileURLToPath(new URL("../..", import.meta.url)).replace(/\/$/, "");

/** Directories that contain no documents of the project. */
const OTHERS: readonly string[] = ["node_modules", "output", "results"];

/** The text of a document, by its path from the root of the project. */
export function readDocument(path: string): string {
  return Deno.readTextFileSync(`${ROOT}/${path}`);
}

/** The paths of all Markdown files, from the root of the project. */
export function listDocuments(folder = "."): string[] {
  return [...Deno.readDirSync(`${ROOT}/${folder}`)].flatMap(({ name, isDirectory }) => {
    const path = folder === "." ? name : `${folder}/${name}`;
    if (isDirectory) {
      return name.startsWith(".") || OTHERS.includes(name) ? [] : listDocuments(path);
    }
    return name.endsWith(".md") ? [path] : [];
  }).sort();
}

/** The part of a document below a heading of the second level; all of it without a heading. */
export function readSection(path: string, heading?: string): string {
  const text = readDocument(path);
  if (heading === undefined) return text;
  const start = text.indexOf(`\n## ${heading}\n`);
  if (start < 0) throw new Error(`'${path}' has no section '${heading}'`);
  const end = text.indexOf("\n## ", start + 1);
  return text.slice(start, end < 0 ? undefined : end);
}

/** The code blocks of a text in a language, in their order, without the indentation of a list. */
export function readCodeBlocks(text: string, language: string): string[] {
  const blocks = text.matchAll(new RegExp(`^( *)\`\`\`${language}\\n(.*?)^ *\`\`\`$`, "gms"));
  return [...blocks].map(([, indentation = "", block = ""]) =>
    block.replaceAll(new RegExp(`^${indentation}`, "gm"), "")
  );
}

/** The text without its code blocks. */
export function withoutCodeBlocks(text: string): string {
  return text.replaceAll(/^ *```.*?^ *```$/gms, "");
}

/** The code spans of a text. */
export function readCodeSpans(text: string): string[] {
  return [...withoutCodeBlocks(text).matchAll(/`([^`]+)`/g)].map(([, span = ""]) => span);
}

/** The cells of the rows of all tables of a text, without the headings. */
export function readTableRows(text: string): string[][] {
  const rows = withoutCodeBlocks(text).split("\n").map((line) =>
    /^\|.*\|$/.test(line)
      ? line.slice(1, -1).split(/(?<!\\)\|/).map((cell) => cell.trim())
      : undefined
  );
  return rows.filter((row, index) => {
    const isRule = (other: string[] | undefined): boolean =>
      other?.every((cell) => /^:?-+:?$/.test(cell)) ?? false;
    return row !== undefined && !isRule(row) && !isRule(rows[index + 1]);
  }) as string[][];
}

/**
 * The anchors of a document, as GitHub derives them from its headings: in lower case, without
 * punctuation, with hyphens for blanks, and with a number if the same anchor occurred before.
 */
export function listAnchors(text: string): string[] {
  const counts = new Map<string, number>();
  return [...withoutCodeBlocks(text).matchAll(/^ {0,3}#{1,6} +(.+?)(?: +#+)?$/gm)]
    .map(([, heading = ""]) => {
      const words = heading.replaceAll(/!?\[([^\]]*)\]\([^)]*\)/g, "$1").replaceAll("`", "");
      const anchor = words.toLowerCase().replaceAll(/[^\p{L}\p{N}\p{M} _-]/gu, "")
        .replaceAll(" ", "-");
      const count = counts.get(anchor) ?? 0;
      counts.set(anchor, count + 1);
      return count === 0 ? anchor : `${anchor}-${count}`;
    });
}

/** The targets of the links and images of a document. */
export function listLinks(text: string): string[] {
  const prose = withoutCodeBlocks(text).replaceAll(/`[^`]+`/g, "");
  const patterns = [
    /\]\(([^()\s]+)(?: "[^"]*")?\)/g,
    /^\[[^\]]+\]: +(\S+)/gm,
    /<(?:img|a)\b[^>]*\b(?:src|href)="([^"]+)"/g,
  ];
  return patterns.flatMap((pattern) =>
    [...prose.matchAll(pattern)].map(([, target = ""]) => target)
  );
}
