// Runs a script for browsers in Node: node run.js SCRIPT ARGUMENT... The script defines the function
// run(report, ...arguments), which reports the result of each step; they are printed as lines of
// JSON: [name, result].
"use strict";

const path = require("path");

globalThis.WebSocket = require("ws");
globalThis.Phoenix = require("phoenix");

const [script, ...options] = process.argv.slice(2);
require(path.resolve(script));

const report = (name, result = null) => console.log(JSON.stringify([name, result]));

globalThis.run(report, ...options).then(
  () => process.exit(0),
  (error) => { console.error(error); process.exit(1); },
);
