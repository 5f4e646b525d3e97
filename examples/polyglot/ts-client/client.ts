// Creates a run of a deployment, follows it to its end and prints its result.
//
//   npm start -- --server 127.0.0.1:4200 word-counts/go --parameters '{"text": "to be or not to be"}'

import { parseArgs } from "node:util";
import { Code, ConnectError, createClient, type Transport } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { DeploymentService } from "./gen/headrace/v1/deployment_service_pb.js";
import { type Run, RunView } from "./gen/headrace/v1/run_pb.js";
import { RunService } from "./gen/headrace/v1/run_service_pb.js";
import { StateType } from "./gen/headrace/v1/state_pb.js";

const FINAL = [StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED, StateType.CRASHED];

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    options: { server: { type: "string", default: "127.0.0.1:4200" }, parameters: { type: "string", default: "" } },
    allowPositionals: true,
  });
  const [name] = positionals;
  if (name === undefined) {
    console.error("usage: npm start -- [--server HOST:PORT] FLOW/DEPLOYMENT [--parameters JSON]");
    return 2;
  }
  const baseUrl = `http://${values.server}`;
  const session = new Http2SessionManager(baseUrl);
  try {
    return await runAndFollow(createGrpcTransport({ baseUrl, sessionManager: session }), name, values.parameters);
  } finally {
    session.abort(); // an open connection would keep the process alive
  }
}

async function runAndFollow(transport: Transport, name: string, parameters: string): Promise<number> {
  const created = await createClient(DeploymentService, transport).createDeploymentRun({
    deployment: { key: { case: "name", value: name } },
    parameters,
  });
  const id = created.run!.id;
  console.error(`created ${created.run!.name} (${id})`);
  const run = await follow(createClient(RunService, transport), id);
  if (run.state!.type !== StateType.COMPLETED) {
    console.error(run.state!.message);
    return 1;
  }
  console.log(result(run));
  return 0;
}

/** Watches a run until it has ended. A stream that breaks is taken up again where it was. */
async function follow(runs: ReturnType<typeof createClient<typeof RunService>>, id: string): Promise<Run> {
  let resumeToken = "";
  let stateId = "";
  for (;;) {
    try {
      for await (const change of runs.watchRuns({ filter: { ids: [id] }, view: RunView.FULL, resumeToken })) {
        resumeToken = change.resumeToken;
        if (change.event.case === "removedRunId") throw new Error(`the run ${id} was deleted`);
        if (change.event.case !== "upsert") continue;
        const { state } = change.event.value;
        if (state === undefined || state.id === stateId) continue;
        stateId = state.id;
        console.error(state.name);
        if (FINAL.includes(state.type)) return change.event.value;
      }
    } catch (error) {
      if (ConnectError.from(error).code !== Code.Unavailable) throw error;
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
  }
}

/** What the run returned, as JSON text; other encodings are Python's own. */
function result(run: Run): string {
  const data = run.state!.data;
  if (data === undefined) return "null";
  if (data.encoding !== "json" || data.body.case !== "inline") return `(kept as ${data.encoding})`;
  return new TextDecoder().decode(data.body.value);
}

try {
  process.exitCode = await main();
} catch (error) {
  // The server's errors are written to be read: what is wrong, and what to do.
  console.error(error instanceof ConnectError ? error.rawMessage : error);
  process.exitCode = 1;
}
