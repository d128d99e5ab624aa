/**
 * `/metrics/slis`: how the checks of `/healthz` on the metrics server came out, in a registry of their own as in every
 * component of Kubernetes.
 *
 * @module
 */

import { Counter, Gauge, Registry } from 'prom-client';

/** One that never answers cannot say so itself: a check that is asked has succeeded. */
export interface HealthChecks {
  readonly registry: Registry;
  /** A check of this name was asked for and passed. */
  passed(name: string): void;
  /** Forgets all. */
  reset(): void;
}

/** Declares both metrics. Names, labels and help texts are those of Kubernetes. */
export function createHealthChecks(): HealthChecks {
  const registry = new Registry();
  const registers = [registry];
  const last = new Gauge<'name' | 'type'>({
    name: 'kubernetes_healthcheck',
    help: '[STABLE] This metric records the result of a single healthcheck.',
    labelNames: ['name', 'type'],
    registers,
  });
  const total = new Counter<'name' | 'type' | 'status'>({
    name: 'kubernetes_healthchecks_total',
    help: '[STABLE] This metric records the results of all healthcheck.',
    labelNames: ['name', 'status', 'type'],
    registers,
  });
  return {
    registry,
    passed(name) {
      const type = 'healthz';
      last.set({ name, type }, 1);
      total.inc({ name, type, status: 'success' });
    },
    reset: () => registry.resetMetrics(),
  };
}
