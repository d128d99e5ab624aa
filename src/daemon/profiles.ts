/**
 * `/debug/pprof/` and `/debug/flags/v`, where the configuration asks for profiling: to clients on this node only.
 *
 * The paths and parameters are Go's; the answers are what this runtime has. Profiles are V8's JSON, which Chrome's and
 * VS Code's profilers open, and not the protobuf that `go tool pprof` reads.
 *
 * @module
 */

import type { Session } from 'node:inspector/promises';
import { getHeapStatistics } from 'node:v8';
import type { Clock } from '../sys/clock.ts';
import { onThisNode } from './debug.ts';
import { type Answer, type Answerer, textAnswer } from './http.ts';

/** Without `?seconds=`: as Go for CPU, and long enough to see what a sync leaves behind. */
const CPU_SECONDS = 30;
const HEAP_SECONDS = 10;
const MAX_SECONDS = 300;
/** One sample a so many bytes, on average: V8's default is 32 KiB, which sees little of ten quiet seconds. */
const HEAP_SAMPLE_BYTES = 8192;

const INDEX = `/debug/pprof/

cmdline  arguments of the process, with a zero byte between two
profile  ?seconds=${CPU_SECONDS} CPU profile, as .cpuprofile (V8's JSON)
heap     ?seconds=${HEAP_SECONDS}&gc=1 what was allocated in this time and is still there, as .heapprofile (V8's JSON);
         gc=1 collects garbage before; seconds=0 says only how large the heap is
allocs   ?seconds=${HEAP_SECONDS} what was allocated in this time, also what is gone again
`;

export interface ProfileDeps {
  readonly clock: Pick<Clock, 'sleep'>;
  /** Collects all garbage. */
  readonly releaseMemory: () => void;
  /** Absent: the level of the log cannot be changed. */
  readonly setVerbosity?: ((verbosity: number) => void) | undefined;
}

function profileAnswer(name: string, profile: object): Answer {
  return {
    status: 200,
    headers: {
      'Content-Type': 'application/json',
      'X-Content-Type-Options': 'nosniff',
      'Content-Disposition': `attachment; filename="${name}"`,
    },
    body: JSON.stringify(profile),
  };
}

/** @returns Undefined if it is no whole number of seconds from `min` to the longest time allowed. */
function secondsOf(query: URLSearchParams, fallback: number, min: number): number | undefined {
  const text = query.get('seconds') ?? String(fallback);
  const seconds = /^\d{1,4}$/.test(text) ? Number(text) : Number.NaN;
  return seconds >= min && seconds <= MAX_SECONDS ? seconds : undefined;
}

async function sampleCpu(session: Session, wait: () => Promise<void>): Promise<object> {
  await session.post('Profiler.enable');
  await session.post('Profiler.start');
  await wait();
  const { profile } = await session.post('Profiler.stop');
  return profile;
}

async function sampleHeap(session: Session, wait: () => Promise<void>, withGone: boolean): Promise<object> {
  await session.post('HeapProfiler.startSampling', {
    samplingInterval: HEAP_SAMPLE_BYTES,
    includeObjectsCollectedByMajorGC: withGone,
    includeObjectsCollectedByMinorGC: withGone,
  });
  await wait();
  const { profile } = await session.post('HeapProfiler.stopSampling');
  return profile;
}

/**
 * Path → answer.
 *
 * @param signal - Ends the wait of a profile that is being taken.
 */
export function profileRoutes(deps: ProfileDeps, signal: AbortSignal): Readonly<Record<string, Answerer>> {
  let isBusy = false;
  const take = async (
    { query }: Parameters<Answerer>[0],
    kind: 'cpu' | 'heap' | 'allocs',
    file: string,
  ): Promise<Answer> => {
    const min = kind === 'cpu' ? 1 : 0;
    const seconds = secondsOf(query, kind === 'cpu' ? CPU_SECONDS : HEAP_SECONDS, min);
    if (seconds === undefined) {
      const got = JSON.stringify(query.get('seconds'));
      const must = `must be a whole number from ${min} to ${MAX_SECONDS}`;
      return textAnswer(400, `Cannot profile for ${got} seconds: ${must}\n`);
    }
    // Two sessions would share V8's one profiler, and the first to end would take it from the other.
    if (isBusy) return textAnswer(409, 'Cannot profile: a profile is being taken, must wait for it\n');
    if (query.get('gc') === '1') deps.releaseMemory();
    if (seconds === 0) return profileAnswer('heap.json', getHeapStatistics());
    isBusy = true;
    // Loaded when it is asked for: it costs memory that no other path needs.
    const { Session } = await import('node:inspector/promises');
    const session = new Session();
    session.connect();
    try {
      const wait = () => deps.clock.sleep(seconds * 1000, signal);
      const profile =
        kind === 'cpu' ? await sampleCpu(session, wait) : await sampleHeap(session, wait, kind === 'allocs');
      return profileAnswer(file, profile);
    } finally {
      session.disconnect();
      isBusy = false;
    }
  };
  const setLevel: Answerer = async ({ body }) => {
    const text = (await body()).trim();
    if (deps.setVerbosity === undefined || !/^\d{1,2}$/.test(text)) {
      return textAnswer(400, `Cannot set the verbosity to ${JSON.stringify(text)}: must be a number from 0 to 99\n`);
    }
    deps.setVerbosity(Number(text));
    return textAnswer(200, `successfully set klog.logging.verbosity to ${text}`);
  };
  const index = onThisNode(() => textAnswer(200, INDEX));
  return {
    '/debug/flags/v': onThisNode(setLevel, ['PUT']),
    '/debug/pprof': index,
    '/debug/pprof/': index,
    '/debug/pprof/allocs': onThisNode((request) => take(request, 'allocs', 'allocs.heapprofile')),
    '/debug/pprof/cmdline': onThisNode(() => textAnswer(200, process.argv.join('\0'))),
    '/debug/pprof/heap': onThisNode((request) => take(request, 'heap', 'heap.heapprofile')),
    '/debug/pprof/profile': onThisNode((request) => take(request, 'cpu', 'cpu.cpuprofile')),
  };
}
