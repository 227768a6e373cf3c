// What the programs share: they read one command a line from standard input, a JSON array of a name
// and its arguments, and answer each with one JSON line, {"result"} or {"error"}. So a test holds a
// process of a user, with the SDK and its caches in it, and tells it what to do when.
//
//   ping                 "pong"
//   token                the token that the SDK has, from its cache if it is there
//   call                 a GET: the menu of an official account, the departments of a corp, ...
//   send text            a POST of JSON
//   upload path          a picture; its media_id
//   download             the SHA-256 of a picture from WeChat
//   sign url             the signature for a page, with a ticket that is not from the SDK's cache
//   agentsign url        the same for an agent of WeCom
//   login code           what the code of a user is worth
//
// Of a third-party platform or a suite, instead of the calls above:
//
//   platformcall         a pre_auth_code
//   exchange code        the code of an authorisation: {account, token, secret}; of a suite also whom get_auth_info
//                        is about: {info}
//   refresh              the account's token, fetched again: {token, secret}
//   accountcall          a GET for the account: an address of WeChat
//   providertoken        the token of a suite's provider
import { createHash } from 'node:crypto';
import readline from 'node:readline';
import { promisify } from 'node:util';

export async function serve(commands) {
  commands.ping = () => 'pong';
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [name, ...args] = JSON.parse(line);
    let answer;
    try {
      answer = { result: await commands[name](...args) };
    } catch (err) {
      answer = { error: `${name}: ${err?.code ?? ''} ${err?.message ?? err}` };
    }
    process.stdout.write(JSON.stringify(answer) + '\n');
  }
}

// All that a user needs: where the sidecar is, and the appid. The secret stays with the sidecar.
export const base = process.env.WXTOKEN_BASE; // http://127.0.0.1:7200/ or http://127.0.0.1:7200/proxy/shop/
export const pinned = process.env.WXTOKEN_HOW === 'https'; // nothing is set: WeChat's names lead to the sidecar
export const kind = process.env.WXTOKEN_KIND; // oa, mini or work
export const appid = process.env.WXTOKEN_APPID;
export const agent = process.env.WXTOKEN_AGENT;
export const secret = 'the-sidecar-has-it';
export const mediaID = 'size-70000';

export const digest = (bytes) => createHash('sha256').update(bytes).digest('hex');

// Of an answer with a menu, what a test can compare.
export const menu = ({ button }) => `${button[0].name} ${button[1].url}`;

// Of an answer of WeCom with departments.
export const departments = ({ department }) => department[0].name;

// Of an SDK with callbacks.
export const promised = (api, method, ...args) => promisify(api[method]).apply(api, args);

// Some SDKs return WeChat's errors as if they were results.
export function checked(answer) {
  if (answer.errcode) {
    throw Object.assign(new Error(answer.errmsg), { code: answer.errcode });
  }
  return answer;
}
