/**
 * Virtual servers and real servers of IPVS, bytes to data and back. Names are those of include/uapi/linux/ip_vs.h, where a virtual
 * server is a service and a real server a destination.
 *
 * Numbers are in host order but for ports. An address takes 16 bytes in answers, of which IPv4 uses the first 4.
 *
 * @module
 */

import { decodeAttributes, encodeAttribute, encodeTextAttribute, NLA_F_NESTED } from './codec.ts';
import { NetlinkError } from './error.ts';

const AF_INET = 2;
const AF_INET6 = 10;

const IPVS_CMD_ATTR_SERVICE = 1;
const IPVS_CMD_ATTR_DEST = 2;

const IPVS_SVC_ATTR_AF = 1;
const IPVS_SVC_ATTR_PROTOCOL = 2;
const IPVS_SVC_ATTR_ADDR = 3;
const IPVS_SVC_ATTR_PORT = 4;
const IPVS_SVC_ATTR_SCHED_NAME = 6;
const IPVS_SVC_ATTR_FLAGS = 7;
const IPVS_SVC_ATTR_TIMEOUT = 8;
const IPVS_SVC_ATTR_NETMASK = 9;

const IPVS_DEST_ATTR_ADDR = 1;
const IPVS_DEST_ATTR_PORT = 2;
const IPVS_DEST_ATTR_FWD_METHOD = 3;
const IPVS_DEST_ATTR_WEIGHT = 4;
const IPVS_DEST_ATTR_U_THRESH = 5;
const IPVS_DEST_ATTR_L_THRESH = 6;
const IPVS_DEST_ATTR_ACTIVE_CONNS = 7;
const IPVS_DEST_ATTR_INACT_CONNS = 8;

/** IP_VS_SVC_F_HASHED: set by the kernel on every service it has, and no business of anybody else. */
const HASHED = 0x2;
const NETMASK: Readonly<Record<4 | 16, number>> = { 4: 0xffff_ffff, 16: 128 };

export interface IpvsServiceKey {
  /** In network order: 4 or 16 bytes, which tells the family. */
  readonly address: Uint8Array;
  readonly port: number;
  /** IPPROTO_TCP 6, IPPROTO_UDP 17, IPPROTO_SCTP 132. */
  readonly protocol: number;
}

export interface IpvsService extends IpvsServiceKey {
  readonly scheduler: string;
  readonly flags: number;
  readonly timeoutSeconds: number;
}

export interface IpvsDestinationKey {
  readonly address: Uint8Array;
  readonly port: number;
}

export interface IpvsDestination extends IpvsDestinationKey {
  /** 0: no new connections. */
  readonly weight: number;
  /** IP_VS_CONN_F_MASQ, which is 0: addresses are translated. */
  readonly forwarding: number;
}

/** A destination as the kernel has it. */
export interface IpvsLiveDestination extends IpvsDestination {
  readonly activeConnections: number;
  readonly inactiveConnections: number;
}

function u16(type: number, value: number): Buffer {
  const payload = Buffer.alloc(2);
  payload.writeUInt16LE(value);
  return encodeAttribute(type, payload);
}

function port16(type: number, value: number): Buffer {
  const payload = Buffer.alloc(2);
  payload.writeUInt16BE(value);
  return encodeAttribute(type, payload);
}

export function u32(type: number, ...values: readonly number[]): Buffer {
  const payload = Buffer.alloc(4 * values.length);
  values.forEach((value, i) => {
    payload.writeUInt32LE(value >>> 0, 4 * i);
  });
  return encodeAttribute(type, payload);
}

function address16(type: number, address: Uint8Array): Buffer {
  const payload = Buffer.alloc(16);
  payload.set(address);
  return encodeAttribute(type, payload);
}

function bytesOf(address: Uint8Array): 4 | 16 {
  if (address.length === 4 || address.length === 16) return address.length;
  throw new RangeError(`Cannot use an address of ${address.length} bytes: must be 4 or 16`);
}

function keyAttributes({ address, port, protocol }: IpvsServiceKey): readonly Buffer[] {
  return [
    u16(IPVS_SVC_ATTR_AF, bytesOf(address) === 4 ? AF_INET : AF_INET6),
    u16(IPVS_SVC_ATTR_PROTOCOL, protocol),
    address16(IPVS_SVC_ATTR_ADDR, address),
    port16(IPVS_SVC_ATTR_PORT, port),
  ];
}

function nested(type: number, attributes: readonly Buffer[]): Buffer {
  return encodeAttribute(type | NLA_F_NESTED, Buffer.concat(attributes));
}

/** The attribute that names a service. */
export function encodeServiceKey(key: IpvsServiceKey): Buffer {
  return nested(IPVS_CMD_ATTR_SERVICE, keyAttributes(key));
}

/** The attribute that says all there is to say about a service. */
export function encodeService(service: IpvsService): Buffer {
  return nested(IPVS_CMD_ATTR_SERVICE, [
    ...keyAttributes(service),
    encodeTextAttribute(IPVS_SVC_ATTR_SCHED_NAME, service.scheduler),
    // Behind the flags the mask of those that are meant.
    u32(IPVS_SVC_ATTR_FLAGS, service.flags, 0xffff_ffff),
    u32(IPVS_SVC_ATTR_TIMEOUT, service.timeoutSeconds),
    u32(IPVS_SVC_ATTR_NETMASK, NETMASK[bytesOf(service.address)]),
  ]);
}

function destinationKey({ address, port }: IpvsDestinationKey): readonly Buffer[] {
  return [address16(IPVS_DEST_ATTR_ADDR, address), port16(IPVS_DEST_ATTR_PORT, port)];
}

/** The attribute that names a destination. */
export function encodeDestinationKey(key: IpvsDestinationKey): Buffer {
  return nested(IPVS_CMD_ATTR_DEST, destinationKey(key));
}

/** The attribute that says all there is to say about a destination. */
export function encodeDestination(destination: IpvsDestination): Buffer {
  return nested(IPVS_CMD_ATTR_DEST, [
    ...destinationKey(destination),
    u32(IPVS_DEST_ATTR_FWD_METHOD, destination.forwarding),
    u32(IPVS_DEST_ATTR_WEIGHT, destination.weight),
    u32(IPVS_DEST_ATTR_U_THRESH, 0),
    u32(IPVS_DEST_ATTR_L_THRESH, 0),
  ]);
}

function malformed(what: string): NetlinkError {
  return new NetlinkError('decode an answer of IPVS', { code: 'MALFORMED', what });
}

/** @throws {NetlinkError} MALFORMED, if the attribute is missing or too short. */
function fieldOf(attributes: ReadonlyMap<number, Buffer>, type: number, bytes: number): Buffer {
  const field = attributes.get(type);
  if (field === undefined || field.length < bytes) throw malformed(`attribute ${type} is missing or too short`);
  return field;
}

/**
 * A service of a dump; undefined for one that is named by a firewall mark.
 *
 * @param attributes - What stands behind the generic header.
 * @throws {NetlinkError} MALFORMED
 */
export function decodeService(attributes: Buffer): IpvsService | undefined {
  const service = decodeAttributes(fieldOf(decodeAttributes(attributes), IPVS_CMD_ATTR_SERVICE, 0));
  if (!service.has(IPVS_SVC_ATTR_ADDR)) return undefined;
  const isIPv4 = fieldOf(service, IPVS_SVC_ATTR_AF, 2).readUInt16LE(0) === AF_INET;
  const bytes = isIPv4 ? 4 : 16;
  return {
    address: fieldOf(service, IPVS_SVC_ATTR_ADDR, bytes).subarray(0, bytes),
    port: fieldOf(service, IPVS_SVC_ATTR_PORT, 2).readUInt16BE(0),
    protocol: fieldOf(service, IPVS_SVC_ATTR_PROTOCOL, 2).readUInt16LE(0),
    scheduler: fieldOf(service, IPVS_SVC_ATTR_SCHED_NAME, 1).toString('latin1').replace(/\0.*$/s, ''),
    flags: fieldOf(service, IPVS_SVC_ATTR_FLAGS, 4).readUInt32LE(0) & ~HASHED,
    timeoutSeconds: fieldOf(service, IPVS_SVC_ATTR_TIMEOUT, 4).readUInt32LE(0),
  };
}

/**
 * A destination of a dump.
 *
 * @param attributes - What stands behind the generic header.
 * @param addressBytes - 4 or 16, as the service has it: an answer does not tell before Linux 3.18.
 * @throws {NetlinkError} MALFORMED
 */
export function decodeDestination(attributes: Buffer, addressBytes: number): IpvsLiveDestination {
  const destination = decodeAttributes(fieldOf(decodeAttributes(attributes), IPVS_CMD_ATTR_DEST, 0));
  const number = (type: number) => fieldOf(destination, type, 4).readUInt32LE(0);
  return {
    address: fieldOf(destination, IPVS_DEST_ATTR_ADDR, addressBytes).subarray(0, addressBytes),
    port: fieldOf(destination, IPVS_DEST_ATTR_PORT, 2).readUInt16BE(0),
    weight: number(IPVS_DEST_ATTR_WEIGHT),
    forwarding: number(IPVS_DEST_ATTR_FWD_METHOD),
    activeConnections: number(IPVS_DEST_ATTR_ACTIVE_CONNS),
    inactiveConnections: number(IPVS_DEST_ATTR_INACT_CONNS),
  };
}
