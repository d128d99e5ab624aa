/**
 * Numbers of the kernel's nf_tables interface (include/uapi/linux/netfilter/nf_tables.h, nfnetlink.h, nf_nat.h), under the
 * kernel's own names.
 *
 * @module
 */

import type { ChainObject, FieldType, NftFamily } from './transaction.ts';

export const NFNL_SUBSYS_NFTABLES = 10;
const subsystem = NFNL_SUBSYS_NFTABLES << 8;
export const NFNL_MSG_BATCH_BEGIN = 0x10;
export const NFNL_MSG_BATCH_END = 0x11;
export const NFNL_BATCH_GENID = 1;
export const NFNLGRP_NFTABLES = 7;
export const NFGENMSG_BYTES = 4;

export const NEWTABLE = subsystem | 0;
export const GETTABLE = subsystem | 1;
export const DELTABLE = subsystem | 2;
export const NEWCHAIN = subsystem | 3;
export const GETCHAIN = subsystem | 4;
export const DELCHAIN = subsystem | 5;
export const NEWRULE = subsystem | 6;
export const GETRULE = subsystem | 7;
export const DELRULE = subsystem | 8;
export const NEWSET = subsystem | 9;
export const GETSET = subsystem | 10;
export const DELSET = subsystem | 11;
export const NEWSETELEM = subsystem | 12;
export const GETSETELEM = subsystem | 13;
export const DELSETELEM = subsystem | 14;
export const NEWGEN = subsystem | 15;
export const GETGEN = subsystem | 16;

/** What begins the attributes of tables, chains, rules, sets and lists of elements alike. */
export const NFTA_OBJECT_TABLE = 1;
export const NFTA_TABLE_FLAGS = 2;
export const NFTA_TABLE_USERDATA = 6;
export const NFTA_GEN_ID = 1;

export const NFTA_CHAIN_NAME = 3;
export const NFTA_CHAIN_HOOK = 4;
export const NFTA_CHAIN_POLICY = 5;
export const NFTA_CHAIN_TYPE = 7;
export const NFTA_CHAIN_FLAGS = 10;
export const NFTA_CHAIN_USERDATA = 12;
export const NFT_CHAIN_BINDING = 0x4;
export const NFTA_HOOK_HOOKNUM = 1;
export const NFTA_HOOK_PRIORITY = 2;
export const NF_ACCEPT = 1;

export const NFTA_RULE_CHAIN = 2;
export const NFTA_RULE_EXPRESSIONS = 4;
export const NFTA_RULE_USERDATA = 7;
export const NFTA_LIST_ELEM = 1;
export const NFTA_EXPR_NAME = 1;
export const NFTA_EXPR_DATA = 2;

export const NFTA_SET_NAME = 2;
export const NFTA_SET_FLAGS = 3;
export const NFTA_SET_KEY_TYPE = 4;
export const NFTA_SET_KEY_LEN = 5;
export const NFTA_SET_DATA_TYPE = 6;
export const NFTA_SET_DATA_LEN = 7;
export const NFTA_SET_DESC = 9;
export const NFTA_SET_ID = 10;
export const NFTA_SET_TIMEOUT = 11;
export const NFTA_SET_USERDATA = 13;
export const NFTA_SET_DESC_SIZE = 1;
export const NFTA_SET_DESC_CONCAT = 2;
export const NFTA_SET_FIELD_LEN = 1;
export const NFT_SET_ANONYMOUS = 0x1;
export const NFT_SET_CONSTANT = 0x2;
export const NFT_SET_INTERVAL = 0x4;
export const NFT_SET_MAP = 0x8;
export const NFT_SET_TIMEOUT = 0x10;
export const NFT_SET_EVAL = 0x20;
export const NFT_SET_CONCAT = 0x80;
export const NFT_DATA_VERDICT = 0xffffff00;

export const NFTA_SET_ELEM_LIST_SET = 2;
export const NFTA_SET_ELEM_LIST_ELEMENTS = 3;
export const NFTA_SET_ELEM_LIST_SET_ID = 4;
export const NFTA_SET_ELEM_KEY = 1;
export const NFTA_SET_ELEM_DATA = 2;
export const NFTA_SET_ELEM_FLAGS = 3;
export const NFTA_SET_ELEM_TIMEOUT = 4;
export const NFTA_SET_ELEM_EXPIRATION = 5;
export const NFTA_SET_ELEM_USERDATA = 6;
export const NFTA_SET_ELEM_KEY_END = 10;
export const NFT_SET_ELEM_INTERVAL_END = 1;

export const NFTA_DATA_VALUE = 1;
export const NFTA_DATA_VERDICT = 2;
export const NFTA_VERDICT_CODE = 1;
export const NFTA_VERDICT_CHAIN = 2;
export const NF_DROP_CODE = 0;
export const NFT_JUMP_CODE = -3;
export const NFT_GOTO_CODE = -4;
export const NFT_RETURN_CODE = -5;

/** Types of the entries of user data that hold a comment. */
export const COMMENT_UDATA = 0;
export const SET_COMMENT_UDATA = 7;

export const NFPROTO: Readonly<Record<NftFamily, number>> = { ip: 2, ip6: 10 };
export const ADDRESS_BYTES: Readonly<Record<NftFamily, 4 | 16>> = { ip: 4, ip6: 16 };

export type BaseChain = NonNullable<ChainObject['base']>;

/** NF_INET_… */
export const HOOKS: readonly BaseChain['hook'][] = ['prerouting', 'input', 'forward', 'output', 'postrouting'];

export const PROTOCOLS: Readonly<Record<string, number>> = { tcp: 6, udp: 17, sctp: 132 };

/** What nft calls the type of a field, its number in NFTA_SET_KEY_TYPE, and its bytes. */
export interface FieldLayout {
  readonly id: number;
  readonly bytes: number;
}

const FIELDS: Readonly<Record<Exclude<FieldType, 'addr'>, FieldLayout>> = {
  integer: { id: 4, bytes: 4 },
  inet_proto: { id: 12, bytes: 1 },
  inet_service: { id: 13, bytes: 2 },
  mark: { id: 19, bytes: 4 },
  classid: { id: 23, bytes: 4 },
};
const ADDRESSES: Readonly<Record<NftFamily, FieldLayout>> = { ip: { id: 7, bytes: 4 }, ip6: { id: 8, bytes: 16 } };

export function fieldLayout(type: FieldType, family: NftFamily): FieldLayout {
  return type === 'addr' ? ADDRESSES[family] : FIELDS[type];
}
