// nest-wechat, whose addresses are constants: through the https face, or with the preload of
// docs/sdks.md. It keeps its token (by stable_token) and its ticket in memory.
import nest from 'nest-wechat';
import { appid, checked, digest, kind, secret, serve } from './commands.mjs';

const service = new nest.WeChatService({ appId: appid, secret });
const token = () => service.getToken();

await serve({
  token,
  call: async () => checked((await service.mp.getMessageTemplateList(await token())).data).data[0].title,
  send: async (text) => (kind === 'mini'
    ? checked((await service.mp.sendMessage({ touser: 'oOpenID', template_id: 't', data: { thing1: { value: text } } }, await token())).data)
    : checked(await service.sendTemplateMessage({ touser: 'oOpenID', template_id: 't', data: { first: { value: text } } }))).errmsg,
  download: async () =>
    digest((await service.mp.getUnlimitedQRCode({ scene: 'a=1' }, await token(), { responseType: 'arraybuffer' })).data),
  sign: async (url) => {
    await service.cacheAdapter.remove(`${nest.WeChatService.KEY_TICKET}_${appid}`);
    return service.jssdkSignature(url);
  },
  login: async (code) => checked(await service.mp.code2Session(code, appid, secret)).openid,
});
