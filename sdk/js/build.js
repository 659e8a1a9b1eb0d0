/** Makes `dist/index.js` (one minified module) and its types; fails when it has grown over what a page should have to load. */
import { execFileSync } from "node:child_process";
import { readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const GZIPPED_MAX = 5 * 1000;

process.chdir(import.meta.dirname);
rmSync("dist", { recursive: true, force: true });
await build({
  entryPoints: ["src/index.js"],
  outfile: "dist/index.js",
  bundle: true,
  format: "esm",
  target: "es2022",
  minify: true,
  legalComments: "none",
});
const tsc = createRequire(import.meta.url).resolve("typescript/bin/tsc");
execFileSync(process.execPath, [tsc, "-p", "tsconfig.build.json"], { stdio: "inherit" });

const built = readFileSync("dist/index.js");
const gzipped = gzipSync(built, { level: 9 }).length;
console.log(`dist/index.js: ${built.length} bytes, ${gzipped} gzipped (at most ${GZIPPED_MAX})`);
if (gzipped > GZIPPED_MAX) process.exit(1);
