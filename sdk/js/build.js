/** Makes `dist/index.js` and `dist/cache.js` (minified modules) and their types; fails when it has grown over what a page should have to load. */
import { execFileSync } from "node:child_process";
import { readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const GZIPPED_MAX = { "dist/index.js": 5000, "dist/cache.js": 600 };

/** Properties that only modules of this SDK say to each other: none is on the wire, in a store or an application's hands. */
const INTERNAL = [
  "ackAt",
  "after",
  "applied",
  "askAt",
  "closed",
  "deadline",
  "disconnected",
  "due",
  "expire",
  "fetchFailed",
  "fetched",
  "followed",
  "hinted",
  "hold",
  "newToken",
  "opened",
  "position",
  "probe",
  "receive",
  "refused",
  "renewalFailed",
  "renewed",
  "restored",
  "steer",
  "take",
  "told",
  "version",
  "welcomed",
];

process.chdir(import.meta.dirname);
rmSync("dist", { recursive: true, force: true });
await build({
  entryPoints: ["src/index.js", "src/cache.js"],
  outdir: "dist",
  bundle: true,
  format: "esm",
  target: "es2022",
  minify: true,
  mangleProps: new RegExp(`^(${INTERNAL.join("|")})$`),
  legalComments: "none",
});
const tsc = createRequire(import.meta.url).resolve("typescript/bin/tsc");
for (const config of ["tsconfig.build.json", "tsconfig.types.json"])
  execFileSync(process.execPath, [tsc, "-p", config], { stdio: "inherit" });

for (const [file, most] of Object.entries(GZIPPED_MAX)) {
  const built = readFileSync(file);
  const gzipped = gzipSync(built, { level: 9 }).length;
  console.log(`${file}: ${built.length} bytes, ${gzipped} gzipped (at most ${most})`);
  if (gzipped > most) process.exitCode = 1;
}
