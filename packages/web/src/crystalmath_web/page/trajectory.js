// The frames of a job: those that its program has written, else the structure that is on record.

import { call } from "./server.js";

const single = (frame) => frame && { count: 1, frame: () => frame };

/** Return the frames of a job; null where there is no structure yet. */
export async function trajectoryOf(job, structureIn) {
  if (job.status === "completed") {
    const told = await call("jobs.result", { job_id: job.job_id, field: "atoms" }).catch(() => null);
    const found = structureIn(told?.result);
    if (found) return single(found);
  }
  const told = await call("jobs.specification", { job_id: job.job_id });
  return single(structureIn(told.structure));
}
