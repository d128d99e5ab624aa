/**
 * Hands each watch event to the proxiers of both families.
 *
 * @module
 */

import type { Proxier } from './proxier.ts';
import { assertNever, type ObjectKey, type WatchEvent } from './types.ts';

/** What of a family's proxier the events reach. */
export type EventTarget = Pick<
  Proxier,
  | 'upsertService'
  | 'deleteService'
  | 'upsertSlice'
  | 'deleteSlice'
  | 'setZone'
  | 'setServiceCIDRs'
  | 'servicesSynced'
  | 'slicesSynced'
>;

/**
 * Makes the one handler of all watch events. Every event goes to all families, in the order given, but of
 * a Node only its zone.
 */
export function createFanOut(targets: readonly EventTarget[]): (event: WatchEvent) => void {
  const serviceCIDRs = new Map<ObjectKey, readonly string[]>();
  const tellServiceCIDRs = () => {
    // Two objects may name one CIDR: it lives as long as either.
    const cidrs = [...new Set([...serviceCIDRs.values()].flat())];
    for (const target of targets) target.setServiceCIDRs(cidrs);
  };

  const upsert = ({ object }: Extract<WatchEvent, { type: 'upsert' }>) => {
    switch (object.kind) {
      case 'Service':
        for (const target of targets) target.upsertService(object);
        return;
      case 'EndpointSlice':
        // Each model takes those of its own address type. Deleted and made again with another one, a slice may arrive
        // as one change, so all of them have to see it.
        for (const target of targets) target.upsertSlice(object);
        return;
      case 'Node':
        for (const target of targets) target.setZone(object.zone);
        return;
      case 'ServiceCIDR':
        serviceCIDRs.set(object.key, object.cidrs);
        tellServiceCIDRs();
        return;
      default:
        assertNever(object, 'object');
    }
  };

  const remove = ({ kind, key }: Extract<WatchEvent, { type: 'delete' }>) => {
    switch (kind) {
      case 'Service':
        for (const target of targets) target.deleteService(key);
        return;
      case 'EndpointSlice':
        for (const target of targets) target.deleteSlice(key);
        return;
      case 'Node':
        // The zone of a node that is gone stays: its pods still run here.
        return;
      case 'ServiceCIDR':
        if (serviceCIDRs.delete(key)) tellServiceCIDRs();
        return;
      default:
        assertNever(kind, 'kind');
    }
  };

  return (event) => {
    if (event.type === 'upsert') upsert(event);
    else if (event.type === 'delete') remove(event);
    else if (event.kind === 'Service') for (const target of targets) target.servicesSynced();
    else if (event.kind === 'EndpointSlice') for (const target of targets) target.slicesSynced();
  };
}
