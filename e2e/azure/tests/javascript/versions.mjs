// The versions of Microsoft's packages, as they are installed.

import { readFileSync } from "node:fs";

export function versions(...names) {
  const version = (name) => JSON.parse(readFileSync(`node_modules/@azure/${name}/package.json`, "utf8")).version;
  return Object.fromEntries(names.map((name) => [`@azure/${name}`, version(name)]));
}
