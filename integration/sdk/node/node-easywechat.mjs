// node-easywechat through a sidecar. It keeps its token and its ticket in files, for all of
// expires_in, and does nothing about 40001: whoever kills its token breaks it for up to two hours.
import { OfficialAccount } from 'node-easywechat';
import { appid, base, secret, serve } from './commands.mjs';

const app = new OfficialAccount({
  app_id: appid,
  secret,
  http: { baseURL: base }, // the one setting
  use_stable_access_token: process.env.WXTOKEN_STABLE === '1',
  file_cache: { path: process.env.WXTOKEN_CACHE },
});
const client = app.getClient();

// It returns WeChat's errors as if they were results.
function checked(response) {
  const answer = response.toObject();
  if (answer.errcode) {
    throw Object.assign(new Error(answer.errmsg), { code: answer.errcode });
  }
  return answer;
}

await serve({
  token: () => app.getAccessToken().getToken(),
  menu: async () => checked(await client.get('cgi-bin/menu/get')).menu,
  send: async (openid, text) =>
    checked(await client.postJson('cgi-bin/message/custom/send', { touser: openid, msgtype: 'text', text: { content: text } })).errmsg,
  upload: async (path) =>
    checked(await client.withFile(path, 'media').post('cgi-bin/media/upload', { params: { type: 'image' } })).media_id,
  ticket: () => app.getTicket().getTicket(),
  jssdk: (url) => app.getUtils().buildJsSdkConfig(url, ['scanQRCode']),
});
