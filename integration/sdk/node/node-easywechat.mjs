// node-easywechat through a sidecar. It keeps its token and its ticket in files, for all of
// expires_in, and does nothing about 40001: whatever kills its token breaks it for up to two hours.
import { MiniApp, OfficialAccount, Work } from 'node-easywechat';
import { agent, appid, base, checked, departments, digest, kind, mediaID, menu, pinned, secret, serve } from './commands.mjs';

const Application = { oa: OfficialAccount, mini: MiniApp, work: Work }[kind];
const app = new Application({
  app_id: appid,
  corp_id: appid,
  secret,
  ...(pinned ? {} : { http: { baseURL: base } }), // the one setting
  use_stable_access_token: process.env.WXTOKEN_HOW === 'stable',
  file_cache: { path: process.env.WXTOKEN_CACHE },
});
const client = app.getClient();
const json = async (method, path, body) => checked((await client[method](path, body)).toObject());
const forget = () => app.getCache().delete(app.getTicket().getKey());

await serve({
  token: () => app.getAccessToken().getToken(),
  call: async () => ({
    oa: async () => menu((await json('get', 'cgi-bin/menu/get')).menu),
    mini: async () => (await json('get', 'wxaapi/newtmpl/gettemplate')).data[0].title,
    work: async () => departments(await json('get', 'cgi-bin/department/list')),
  })[kind](),
  send: async (text) => ({
    oa: () => json('postJson', 'cgi-bin/message/custom/send', { touser: 'oOpenID', msgtype: 'text', text: { content: text } }),
    mini: () => json('postJson', 'cgi-bin/message/subscribe/send', { touser: 'oOpenID', template_id: 't', data: { thing1: { value: text } } }),
    work: () => json('postJson', 'cgi-bin/message/send', { touser: '@all', agentid: agent, msgtype: 'text', text: { content: text } }),
  })[kind]().then((answer) => answer.errmsg),
  upload: async (path) =>
    checked((await client.withFile(path, 'media').post('cgi-bin/media/upload', { params: { type: 'image' } })).toObject()).media_id,
  download: async () => {
    const answer = kind === 'mini'
      ? await client.postJson('wxa/getwxacodeunlimit', { scene: 'a=1' }, { responseType: 'arraybuffer' })
      : await client.get('cgi-bin/media/get', { params: { media_id: mediaID }, responseType: 'arraybuffer' });
    return digest(answer.getContent());
  },
  sign: async (url) => {
    await forget();
    return app.getUtils().buildJsSdkConfig(url, ['scanQRCode']);
  },
  agentsign: async (url) => {
    await forget();
    return app.getUtils().buildJsSdkAgentConfig(agent, url, ['selectExternalContact']);
  },
  login: async (code) => (await app.getUtils().codeToSession(code)).openid,
});
