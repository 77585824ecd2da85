// Checks an AsyncAPI document with the official parser. Exits with 1 on any problem, including warnings. Usage:
// asyncapi.mjs PATH, from a folder with @asyncapi/parser
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [path] = process.argv.slice(2);
const require = createRequire(pathToFileURL(`${process.cwd()}/`));
const { Parser, fromFile } = require("@asyncapi/parser");
const { document, diagnostics } = await fromFile(new Parser(), path).parse();
// A newer version of AsyncAPI is not a problem.
const faults = diagnostics.filter(({ code }) => code !== "asyncapi-latest-version");
for (const { severity, code, message, path: at } of faults) console.error(severity, code, at.join("."), message);
if (faults.length > 0 || document === undefined) process.exit(1);
const messages = document.channels().all().flatMap((channel) => channel.messages().all());
console.log(`${document.channels().length} channels, ${messages.length} messages`);
