/**
 * Whether a process grows: its memory after a collection of garbage, and a trend that single samples cannot bend.
 *
 * @module
 */

import type { LiveProxy } from './live-proxy.ts';

export interface MemorySample {
  readonly residentMiB: number;
  /** Of JavaScript, in use. */
  readonly heapMiB: number;
}

const MIB = 1024 * 1024;

/** Collects the garbage of a proxy that runs with profiling, and looks. */
export async function residentAfterCollection(proxy: LiveProxy): Promise<MemorySample> {
  const answer = await fetch('http://127.0.0.1:10249/debug/pprof/heap?gc=1&seconds=0');
  if (!answer.ok) throw new Error(`Cannot collect garbage: ${answer.status} ${await answer.text()}`);
  const { used_heap_size: heap }: { used_heap_size: number } = JSON.parse(await answer.text());
  return { residentMiB: proxy.residentMiB, heapMiB: heap / MIB };
}

/** The middle one; of an even number the mean of the two in the middle. NaN of none. */
export function median(numbers: readonly number[]): number {
  const sorted = numbers.toSorted((a, b) => a - b);
  const middle = sorted.length / 2;
  return ((sorted[Math.ceil(middle) - 1] ?? Number.NaN) + (sorted[Math.floor(middle)] ?? Number.NaN)) / 2;
}

/**
 * How much a series grows from its first sample to its last, as a share of its median: 0.05 is 5 %.
 *
 * The slope is the median of the slopes between all pairs (Theil and Sen): almost a third of the samples may lie
 * anywhere, as they do when the collector or the allocator had something else in mind.
 */
export function growthOf(samples: readonly number[]): number {
  const slopes = samples.flatMap((later, j) => samples.slice(0, j).map((earlier, i) => (later - earlier) / (j - i)));
  return (median(slopes) * (samples.length - 1)) / median(samples);
}
