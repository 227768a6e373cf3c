// A third-party platform, or a provider with a suite, that uses node-easywechat through a sidecar.
import { OpenPlatform, OpenWork } from 'node-easywechat';
import { appid, base, checked, kind, secret, serve } from './commands.mjs';

const account = process.env.WXTOKEN_ACCOUNT;
const provider = process.env.WXTOKEN_PROVIDER;
const common = {
  secret,
  token: secret,
  aes_key: 'abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG', // any: the sidecar opens the pushes
  http: { baseURL: base }, // the one setting
  file_cache: { path: process.env.WXTOKEN_CACHE },
};

async function open() {
  const app = new OpenPlatform({ ...common, app_id: appid });
  await app.getVerifyTicket().setTicket(secret); // any
  return {
    token: () => app.getComponentAccessToken().getToken(),
    platformcall: async () => (await app.createPreAuthorizationCode()).pre_auth_code,
    exchange: async (code) => {
      const got = await app.getAuthorization(code);
      return { account: got.getAppId(), token: await got.getAccessToken().getToken(), secret: got.getRefreshToken() };
    },
    refresh: async () => {
      const got = await app.refreshAuthorizerToken(account, 'of-this-app');
      return { token: got.authorizer_access_token, secret: got.authorizer_refresh_token };
    },
    accountcall: async () => {
      const one = await app.getOfficialAccountWithRefreshToken(account, secret, { file_cache: common.file_cache });
      return checked((await one.getClient().get('cgi-bin/getcallbackip')).toObject()).ip_list[0];
    },
  };
}

async function suite() {
  const app = new OpenWork({ ...common, corp_id: provider, provider_secret: secret, suite_id: appid, suite_secret: secret });
  await app.getSuiteTicket().setTicket(secret); // any
  const token = () => app.getSuiteAccessToken().getToken();
  const service = async (path, json) =>
    checked((await app.getHttpClient().request('post', `cgi-bin/service/${path}`, { params: { suite_access_token: await token() }, json })).toObject());
  return {
    token,
    platformcall: async () => (await app.createPreAuthorizationCode()).pre_auth_code,
    exchange: async (code) => { // for which the SDK has no method
      const got = await service('get_permanent_code', { auth_code: code });
      const info = await app.getAuthorization(got.auth_corp_info.corpid, got.permanent_code);
      return { account: got.auth_corp_info.corpid, token: got.access_token, secret: got.permanent_code, info: info.getCorpId() };
    },
    refresh: async () => ({ token: await (await app.getAuthorizerAccessToken(account, 'wxtoken')).getToken(), secret: 'of-this-app' }),
    accountcall: async () =>
      checked((await (await app.getAuthorizerClient(account, 'wxtoken')).get('cgi-bin/getcallbackip')).toObject()).ip_list[0],
    providertoken: () => app.getProviderAccessToken().getToken(),
  };
}

await serve(await { open, suite }[kind]());
