/**
 * What the health server and the metrics server answer.
 *
 * @module
 */

import type { Registry } from 'prom-client';
import { HEALTH_HEADERS, type ProxyHealth } from '../proxier/health.ts';
import type { Metrics } from '../proxier/metrics.ts';
import { type Answer, type Answerer, NOT_FOUND, textAnswer } from './http.ts';
import { OPEN_METRICS_TYPE, prefersOpenMetrics, toOpenMetrics } from './open-metrics.ts';
import { createHealthChecks, type HealthChecks } from './slis.ts';

/** `/healthz` and `/livez`, whatever the method; each answer is counted by its code. */
export function healthRoutes(health: ProxyHealth, metrics: Pick<Metrics, 'healthz' | 'livez'>): Answerer {
  return ({ path }) => {
    if (path !== '/healthz' && path !== '/livez') return NOT_FOUND;
    const kind = path === '/healthz' ? 'healthz' : 'livez';
    const { status, body } = health[kind]();
    metrics[kind].inc({ code: String(status) });
    return { status, headers: HEALTH_HEADERS, body };
  };
}

export interface MetricsRoutes {
  readonly metrics: Pick<Metrics, 'registry'>;
  readonly mode: string;
  /** The effective configuration as its file would say it, with kind and apiVersion. */
  readonly configz: () => object;
  /** Further paths. Default none. */
  readonly debug?: Readonly<Record<string, Answerer>>;
}

/** The `ok` of a server that answers at all; `?verbose` names its one check, `?exclude=ping` leaves it out. */
function serverHealth(query: URLSearchParams, checks: HealthChecks): Answer {
  const excluded = new Set(query.getAll('exclude'));
  const isExcluded = excluded.delete('ping');
  if (!isExcluded) checks.passed('ping');
  const lines = [isExcluded ? '[+]ping excluded: ok\n' : '[+]ping ok\n'];
  if (excluded.size > 0) {
    const names = [...excluded].map((n) => JSON.stringify(n)).join(',');
    lines.push(`warn: some health checks cannot be excluded: no matches for ${names}\n`);
  }
  return textAnswer(200, query.has('verbose') ? `${lines.join('')}healthz check passed\n` : 'ok');
}

/** A registry in the form that the client likes best. */
async function registryAnswer(registry: Registry, accept: string): Promise<Answer> {
  const text = await registry.metrics();
  const isOpen = prefersOpenMetrics(accept);
  return {
    status: 200,
    headers: { 'Content-Type': isOpen ? OPEN_METRICS_TYPE : registry.contentType, Vary: 'Accept' },
    body: isOpen ? toOpenMetrics(text) : text,
  };
}

/** The metrics server. `/` lists the paths, with status 404. */
export function metricsRoutes({ metrics, mode, configz, debug = {} }: MetricsRoutes): Answerer {
  const checks = createHealthChecks();
  const routes: Readonly<Record<string, Answerer>> = {
    '/configz': () => ({
      status: 200,
      headers: { 'Content-Type': 'application/json', 'X-Content-Type-Options': 'nosniff' },
      body: JSON.stringify({ 'kubeproxy.config.k8s.io': configz() }),
    }),
    ...debug,
    '/healthz': ({ query }) => serverHealth(query, checks),
    '/healthz/ping': () => textAnswer(200, 'ok'),
    '/metrics': ({ accept }) => registryAnswer(metrics.registry, accept),
    '/metrics/slis': ({ accept, method }) => {
      if (method !== 'DELETE') return registryAnswer(checks.registry, accept);
      checks.reset();
      return textAnswer(200, 'metrics reset\n');
    },
    '/proxyMode': () => textAnswer(200, mode),
  };
  const paths = Object.keys(routes).sort();
  return (request) => {
    const { path } = request;
    if (path === '/') return textAnswer(404, `${paths.join('\n')}\n`);
    return Object.hasOwn(routes, path) ? (routes[path]?.(request) ?? NOT_FOUND) : NOT_FOUND;
  };
}
