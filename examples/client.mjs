// Submit a POSCAR, watch its job, print what it gave: node client.mjs SOCKET POSCAR
import { readFileSync } from "node:fs";
import { connect } from "node:net";

const [path, poscar] = process.argv.slice(2);
const socket = connect(path);
const waiting = []; // the number of a request is its place in here
let data = Buffer.alloc(0);

socket.on("data", (chunk) => {
  data = Buffer.concat([data, chunk]);
  for (let start; (start = data.indexOf("\r\n\r\n") + 4) > 3; ) {
    const end = start + Number(/Content-Length: *(\d+)/i.exec(data.subarray(0, start))[1]);
    if (data.length < end) return;
    const message = JSON.parse(data.subarray(start, end));
    data = data.subarray(end);
    if (message.method) console.error(message.params.job_id, message.params.status);
    else if (message.error) waiting[message.id].reject(new Error(message.error.message));
    else waiting[message.id].resolve(message.result);
  }
});

function call(method, params = {}) {
  const body = JSON.stringify({ jsonrpc: "2.0", id: waiting.length, method, params });
  socket.write(`Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`);
  return new Promise((resolve, reject) => waiting.push({ resolve, reject }));
}

await call("jobs.subscribe");
const job = { recipe: "quacc.recipes.emt.core.relax_job", structure: readFileSync(poscar, "utf8") };
const { job_id, error } = await call("jobs.submit", job);
if (error) throw new Error(error);
await call("jobs.wait", { job_ids: [job_id], timeout_s: 600 });
console.log(JSON.stringify(await call("jobs.status", { job_id })));
socket.end();
