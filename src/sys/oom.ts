/**
 * How readily the kernel kills this process when memory runs out.
 *
 * @module
 */

import { writeFile } from 'node:fs/promises';

/**
 * Writes /proc/self/oom_score_adj, trying twice.
 *
 * @param score - -1000 (never) to 1000 (first).
 * @throws The error of the file system, if the second try fails too: lowering the score needs CAP_SYS_RESOURCE.
 */
export async function setOomScore(score: number, path = '/proc/self/oom_score_adj'): Promise<void> {
  const write = () => writeFile(path, String(score));
  await write().catch(write);
}
