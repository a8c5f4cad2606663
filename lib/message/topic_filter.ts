/**
 * Topic filters (MQTT 5.0 section 4.7): their syntax, which topics they match, and which filters
 * match a topic.
 */

/** Topics of up to this many levels get all matching filters, less than 2^8 of them. */
const MAX_LEVELS_ENUMERATED = 6;

/** The rule of {@linkcode isTopicFilter}, to follow "must be topic filters". */
export const TOPIC_FILTER_RULE = "in which '+' and '#' are whole levels and '#' is the last level";

/** Whether MQTT 5.0 section 4.7.1 allows the text as a topic filter. */
export function isTopicFilter(text: string): boolean {
  const levels = text.split("/");
  const wildcardsStandAlone = levels.every((level) => !/[+#]/.test(level) || level.length === 1);
  const multiLevelIsLast = !levels.slice(0, -1).includes("#");
  return text !== "" && !text.includes("\0") && wildcardsStandAlone && multiLevelIsLast;
}

/** Whether a topic filter matches a topic. A prefix `$share/GROUP/` is ignored. */
export function isMatch(filter: string, topic: string): boolean {
  const pattern = filter.replace(/^\$share\/[^/]*\//, "").split("/");
  const levels = topic.split("/");
  if (topic.startsWith("$") && /^[+#]/.test(pattern[0] ?? "")) return false;
  for (const [index, expected] of pattern.entries()) {
    if (expected === "#") return true;
    if (index >= levels.length || (expected !== "+" && expected !== levels[index])) return false;
  }
  return pattern.length === levels.length;
}

/**
 * All filters that match a topic. For topics of more than six levels only the filters without `+`:
 * the number of the others grows exponentially.
 */
export function filtersThatMatch(topic: string): string[] {
  const levels = topic.split("/");
  const withPlus = levels.length <= MAX_LEVELS_ENUMERATED;
  let prefixes = [""];
  const filters = ["#"];
  for (const level of levels) {
    prefixes = prefixes.flatMap((prefix) =>
      (withPlus ? [level, "+"] : [level]).map((choice) => `${prefix}${choice}/`)
    );
    filters.push(...prefixes.map((prefix) => `${prefix}#`));
  }
  filters.push(...prefixes.map((prefix) => prefix.slice(0, -1)));
  return filters.filter((filter) => isMatch(filter, topic));
}
