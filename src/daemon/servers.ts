/**
 * Starts the health server and the metrics server.
 *
 * @module
 */

import { toKubeProxyConfiguration } from '../config/write.ts';
import { nodePortAddresses } from '../proxier/node-port-addresses.ts';
import type { Proxier } from '../proxier/proxier.ts';
import { version } from '../version.ts';
import { debugRoutes } from './debug.ts';
import { nodeReference } from './events.ts';
import { type Answerer, serveHttp } from './http.ts';
import { profileRoutes } from './profiles.ts';
import type { Start } from './proxiers.ts';
import { healthRoutes, metricsRoutes } from './routes.ts';
import type { Tasks } from './tasks.ts';
import { zPages } from './zpages.ts';

/** Longest wait for the event that says why the daemon ends. */
const LAST_WORDS_MS = 2_000;

/** Both serve until the tasks end. With bindAddressHardFail one that cannot listen ends all of them, after an event. */
export function startServers(start: Start, proxiers: readonly Proxier[], tasks: Tasks): void {
  const { config, effects, events, metrics, health, mode, node } = start;
  const serve = (name: string, address: string, answer: Answerer, reason: string) =>
    tasks.start(async (signal) => {
      try {
        await serveHttp({ name, address, answer, hardFail: config.bindAddressHardFail }, effects, signal);
      } catch (error) {
        const note = error instanceof Error ? error.message : String(error);
        events.record({ regarding: nodeReference(node.name), type: 'Warning', reason, action: 'StartKubeProxy', note });
        await events.flush(LAST_WORDS_MS);
        throw error;
      }
    });
  if (health !== undefined) {
    const answer = healthRoutes(health, metrics);
    serve('health', config.healthzBindAddress, answer, 'FailedToStartProxierHealthcheck');
  }
  const debug = debugRoutes({
    mode: mode.mode,
    node: node.name,
    version: version(),
    proxiers,
    nodePortAddresses: (family) => nodePortAddresses(start.nodePortTexts, family),
    nodeAddresses: effects.nodeAddresses,
  });
  const answer = metricsRoutes({
    metrics,
    mode: mode.mode,
    configz: () => toKubeProxyConfiguration(config),
    debug: {
      ...zPages({ config, startedMs: effects.clock.now() - process.uptime() * 1000 }, effects),
      ...(config.enableProfiling && profileRoutes(effects, tasks.signal)),
      ...debug,
    },
  });
  serve('metrics', config.metricsBindAddress, answer, 'FailedToStartMetricServer');
}
