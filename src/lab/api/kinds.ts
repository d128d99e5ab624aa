/**
 * The fields of every kind the server knows, with the merge keys that Kubernetes declares for its Go types.
 *
 * @module
 */

import {
  anything,
  boolean,
  integer,
  intOrString,
  list,
  map,
  mergeList,
  object,
  type Schema,
  set,
  string,
  time,
} from './schema.ts';

const ownerReference = object({
  apiVersion: string,
  kind: string,
  name: string,
  uid: string,
  controller: boolean,
  blockOwnerDeletion: boolean,
});

const metadata = object({
  name: string,
  generateName: string,
  namespace: string,
  selfLink: string,
  uid: string,
  resourceVersion: string,
  generation: integer,
  creationTimestamp: time,
  deletionTimestamp: time,
  deletionGracePeriodSeconds: integer,
  labels: map(string),
  annotations: map(string),
  ownerReferences: mergeList(ownerReference, 'uid'),
  finalizers: set(string),
  managedFields: list(anything),
});

function kind(fields: Readonly<Record<string, Schema>>) {
  return object({ apiVersion: string, kind: string, metadata, ...fields });
}

const objectReference = object({
  kind: string,
  namespace: string,
  name: string,
  uid: string,
  apiVersion: string,
  resourceVersion: string,
  fieldPath: string,
});

const condition = object({
  type: string,
  status: string,
  observedGeneration: integer,
  lastTransitionTime: time,
  reason: string,
  message: string,
});

export const serviceSchema = kind({
  spec: object({
    type: string,
    clusterIP: string,
    clusterIPs: list(string),
    ipFamilies: list(string),
    ipFamilyPolicy: string,
    ports: mergeList(
      object({
        name: string,
        protocol: string,
        appProtocol: string,
        port: integer,
        targetPort: intOrString,
        nodePort: integer,
      }),
      'port',
    ),
    selector: map(string),
    sessionAffinity: string,
    sessionAffinityConfig: object({ clientIP: object({ timeoutSeconds: integer }) }),
    externalIPs: list(string),
    externalName: string,
    externalTrafficPolicy: string,
    internalTrafficPolicy: string,
    trafficDistribution: string,
    healthCheckNodePort: integer,
    loadBalancerIP: string,
    loadBalancerClass: string,
    loadBalancerSourceRanges: list(string),
    allocateLoadBalancerNodePorts: boolean,
    publishNotReadyAddresses: boolean,
  }),
  status: object({
    conditions: mergeList(condition, 'type'),
    loadBalancer: object({
      ingress: list(
        object({
          ip: string,
          ipMode: string,
          hostname: string,
          ports: list(object({ port: integer, protocol: string, error: string })),
        }),
      ),
    }),
  }),
});

export const endpointSliceSchema = kind({
  addressType: string,
  ports: list(object({ name: string, port: integer, protocol: string, appProtocol: string })),
  endpoints: list(
    object({
      addresses: list(string),
      conditions: object({ ready: boolean, serving: boolean, terminating: boolean }),
      hostname: string,
      nodeName: string,
      zone: string,
      targetRef: objectReference,
      deprecatedTopology: map(string),
      hints: object({ forZones: list(object({ name: string })), forNodes: list(object({ name: string })) }),
    }),
  ),
});

export const nodeSchema = kind({
  spec: object({
    podCIDR: string,
    podCIDRs: set(string),
    providerID: string,
    unschedulable: boolean,
    taints: list(object({ key: string, value: string, effect: string, timeAdded: time })),
    configSource: anything,
    externalID: string,
  }),
  status: object({
    capacity: map(intOrString),
    allocatable: map(intOrString),
    phase: string,
    conditions: mergeList(
      object({
        type: string,
        status: string,
        lastHeartbeatTime: time,
        lastTransitionTime: time,
        reason: string,
        message: string,
      }),
      'type',
    ),
    addresses: mergeList(object({ type: string, address: string }), 'type'),
    daemonEndpoints: object({ kubeletEndpoint: object({ Port: integer }) }),
    nodeInfo: map(anything),
    images: list(object({ names: list(string), sizeBytes: integer })),
    volumesInUse: list(string),
    volumesAttached: list(object({ name: string, devicePath: string })),
    config: anything,
    runtimeHandlers: list(anything),
    features: anything,
  }),
});

export const namespaceSchema = kind({
  spec: object({ finalizers: list(string) }),
  status: object({ phase: string, conditions: mergeList(condition, 'type') }),
});

export const serviceCIDRSchema = kind({
  spec: object({ cidrs: list(string) }),
  status: object({ conditions: mergeList(condition, 'type') }),
});

const source = object({ component: string, host: string });
const series = object({ count: integer, lastObservedTime: time });

export const coreEventSchema = kind({
  involvedObject: objectReference,
  reason: string,
  message: string,
  source,
  firstTimestamp: time,
  lastTimestamp: time,
  count: integer,
  type: string,
  eventTime: time,
  series,
  action: string,
  related: objectReference,
  reportingComponent: string,
  reportingInstance: string,
});

export const eventSchema = kind({
  regarding: objectReference,
  reason: string,
  note: string,
  deprecatedSource: source,
  deprecatedFirstTimestamp: time,
  deprecatedLastTimestamp: time,
  deprecatedCount: integer,
  type: string,
  eventTime: time,
  series,
  action: string,
  related: objectReference,
  reportingController: string,
  reportingInstance: string,
});
