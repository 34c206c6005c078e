// A client that others wrote (vscode-jsonrpc, from npm) goes through one life: see test_node.py.
import { readFileSync } from "node:fs";
import { connect } from "node:net";
import { createRequire } from "node:module";

const [modules, path, poscar] = process.argv.slice(2);
const rpc = createRequire(`${modules}/`)("vscode-jsonrpc/node");
const socket = connect(path);
const connection = rpc.createMessageConnection(
  new rpc.StreamMessageReader(socket),
  new rpc.StreamMessageWriter(socket),
);
const changes = [];
const watchers = new Set();
connection.onNotification("jobs.changed", (change) => {
  changes.push(change);
  watchers.forEach((look) => look());
});
connection.listen();

const call = (method, params = {}) => connection.sendRequest(method, params);
const seen = (job_id, status) =>
  new Promise((resolve) => {
    const look = () => {
      if (changes.some((change) => change.job_id === job_id && change.status === status)) {
        watchers.delete(look);
        resolve();
      }
    };
    watchers.add(look);
    look();
  });

const { seq } = await call("jobs.subscribe");
const structure = readFileSync(poscar, "utf8");
const relaxed = await call("jobs.submit", { recipe: "quacc.recipes.emt.core.relax_job", structure });
await seen(relaxed.job_id, "completed");
const result = await call("jobs.result", { job_id: relaxed.job_id });

const slow = await call("jobs.submit", { recipe: "lab_recipes.long_sleep", structure });
await seen(slow.job_id, "running");
const cancel = await call("jobs.cancel", { job_id: slow.job_id });
await seen(slow.job_id, "cancelled");

const source = new rpc.CancellationTokenSource();
const patient = connection.sendRequest(
  "jobs.events",
  { after: changes.at(-1).seq, timeout_s: 600 },
  source.token,
);
source.cancel();
const gaveUp = await patient.then(() => null, (error) => error.code);
const unknown = await call("jobs.nonsense").then(() => null, (error) => error.code);

console.log(JSON.stringify({ seq, relaxed, result, slow, cancel, changes, gaveUp, unknown }));
connection.end();
socket.end();
