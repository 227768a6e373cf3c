package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wxtoken/sidecar/integration/rig"
	"github.com/wxtoken/sidecar/pkg/wechat/wechattest"
)

// scene is the status page as a sidecar answered it at one moment.
type scene struct {
	name   string
	page   string
	policy string
	want   []string // what a person must be able to read
}

// sceneOf waits for a page with all that is wanted.
func sceneOf(t *testing.T, p *rig.Sidecar, name string, want ...string) scene {
	t.Helper()
	s := scene{name: name, want: want}
	eventually(t, fmt.Sprintf("the page of %s shows %q", p.Name, want), func() bool {
		page, header, err := p.ShowAs("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "/status") // a browser's
		if err != nil {
			t.Fatal(err)
		}
		s.page, s.policy = page, header.Get("Content-Security-Policy")
		text := strings.ToLower(html.UnescapeString(tag.ReplaceAllString(page, "")))
		return !slices.ContainsFunc(want, func(w string) bool { return !strings.Contains(text, strings.ToLower(w)) })
	})
	return s
}

var tag = regexp.MustCompile(`<[^>]*>`)

// The page as people meet it: in a real browser, on a phone and on a wide screen, by day and by
// night. WXTOKEN_SCREENSHOTS=folder keeps pictures of it.
func TestTheStatusPageIsReadableInABrowser(t *testing.T) {
	t.Parallel()
	chromium := chromiumPath(t)
	scenes := append(manyApps(t, rig.StartRedis(t)), onePodRefused(t, rig.StartRedis(t))...)
	stage := newStage(t, scenes)
	for _, dark := range []bool{false, true} {
		for _, view := range stage.look(t, chromium, dark) {
			view.check(t, stage, dark)
		}
	}
	if got := stage.violations(); got != "" {
		t.Errorf("the page breaks its own policy: %s", got)
	}
	if dir := os.Getenv("WXTOKEN_SCREENSHOTS"); dir != "" {
		stage.shoot(t, chromium, dir)
	}
}

// manyApps is a sidecar with 30 apps of which some have failed, each in its own way.
func manyApps(t *testing.T, server *rig.Redis) []scene {
	apps := []wechattest.App{{ID: appID, Secret: appSecret}}
	var yaml strings.Builder
	yaml.WriteString("apps:\n")
	c := newCluster(t, server, "WECHAT_APPID=", "WECHAT_SECRET=", "WECHAT_ENDPOINT=", "WECHAT_API_BASE=", "APP_SECRET="+appSecret)
	for i := range 30 {
		id := fmt.Sprintf("wx%016d", i)
		if i == 7 {
			id = "wx" + strings.Repeat("0123456789", 6)
		}
		apps = append(apps, wechattest.App{ID: id, Secret: appSecret})
		fmt.Fprintf(&yaml, "  - {id: %s, alias: shop-%d, secret_env: APP_SECRET, endpoint: token, api_base: %q, tickets: [jsapi]}\n", id, i, c.Upstream.URL+"/many")
	}
	c.Upstream.Server = wechattest.New(apps...)
	c.Upstream.SetSecret(apps[4].ID, "another one")
	c.Upstream.Deny(apps[9].ID, 40243)
	c.Upstream.SetWhitelist(apps[14].ID, "198.51.100.1")
	c.Upstream.AddFault(wechattest.Fault{App: apps[19].ID, Effect: wechattest.EffectErrcode, Code: 45009,
		Message: `</p><script>document.title="owned"</script><img src=x onerror=alert(1)>`})
	file := filepath.Join(t.TempDir(), "config.yaml")
	write(t, file, yaml.String())
	p := c.Add(1, "WXTOKEN_CONFIG="+file)[0]
	eventually(t, "everything was looked for", func() bool {
		_, err := p.Show("/readyz")
		return err == nil
	})
	return []scene{sceneOf(t, p, "many", "Trouble", "cannot be served", "40125", "The AppSecret is wrong", "40243", "Unfreeze it",
		"45009", `<script>document.title="owned"</script>`, "127.0.0.1", "IP whitelist", "shop-29", "new value")}
}

// onePodRefused is two sidecars of which WeChat refuses one's address, and later the same without
// Redis.
func onePodRefused(t *testing.T, server *rig.Redis) []scene {
	c := newCluster(t, server)
	addrs := map[string]string{"sidecar-0": "203.0.113.66", "sidecar-1": "203.0.113.77"}
	c.Upstream.OnCall(func(sidecar string, r *http.Request) { r.Header.Set("X-Forwarded-For", addrs[sidecar]) })
	c.Upstream.SetWhitelist(appID, addrs["sidecar-1"])
	refused := c.Add(1)[0]
	shows := func(p *rig.Sidecar, text string) func() bool {
		return func() bool {
			body, err := p.Show("/status?format=html")
			return err == nil && strings.Contains(body, text)
		}
	}
	eventually(t, "the first pod is refused", shows(refused, "203.0.113.66"))
	good := c.Add(1)[0]
	eventually(t, "the second pod has a token", shows(good, "All well"))
	eventually(t, "the first pod has it, too", shows(refused, `<span class="chip well">fresh</span>`))
	scenes := []scene{
		sceneOf(t, refused, "refused", "Attention", "40164", "203.0.113.66", "IP whitelist", "fresh", "asked again in"),
		sceneOf(t, good, "well", "All well", "fresh", "renews in", "new value", "this one", "arrive"),
	}
	server.Kill()
	eventually(t, "Redis is missed", shows(good, "Bring Redis back"))
	scenes = append(scenes, sceneOf(t, good, "away", "Attention", "Redis is not there", "Bring Redis back", "away", "fresh"))
	server.Start() // it is searched for leaks
	return scenes
}

// chromiumPath skips the test where Chromium is not installed, unless WXTOKEN_REQUIRE_CHROMIUM is
// set.
func chromiumPath(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("WXTOKEN_REQUIRE_CHROMIUM") == "1" {
		t.Fatal("WXTOKEN_REQUIRE_CHROMIUM=1, and chromium is not installed")
	}
	t.Skip("chromium is not installed")
	return ""
}

// stage shows scenes to a browser, in frames as wide as the screens that people have, and lets a
// script outside the frames measure what is inside. That needs one change of the page's policy,
// which forbids frames; and one addition lets the browser tell what the policy stopped.
type stage struct {
	scenes []scene
	url    string

	mu       sync.Mutex
	violated []string
}

var widths = []int{360, 1280}

func newStage(t *testing.T, scenes []scene) *stage {
	s := &stage{scenes: scenes}
	mux := http.NewServeMux()
	for _, one := range scenes {
		if !strings.Contains(one.policy, "frame-ancestors 'none'") || !strings.Contains(one.policy, "default-src 'none'") {
			t.Errorf("%s: the policy is %q", one.name, one.policy)
		}
		mux.HandleFunc("/"+one.name, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Security-Policy", strings.Replace(one.policy, "frame-ancestors 'none'", "frame-ancestors 'self'", 1)+"; report-uri /violated")
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			_, _ = io.WriteString(w, one.page)
		})
	}
	mux.HandleFunc("/violated", func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.violated = append(s.violated, string(body))
	})
	mux.HandleFunc("/stage", func(w http.ResponseWriter, _ *http.Request) {
		for _, one := range scenes {
			for _, width := range widths {
				fmt.Fprintf(w, "<iframe src='/%s' data-name='%s' width='%d' height='900'></iframe>\n", one.name, one.name, width)
			}
		}
		_, _ = io.WriteString(w, measure)
	})
	mux.HandleFunc("/frame/{name}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "<body style='margin:0'><iframe src='/%s' width='360' height='2600' style='border:0'></iframe>", html.EscapeString(r.PathValue("name")))
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

func (s *stage) violations() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.violated, "\n")
}

// measure looks at each frame: how wide its content is, what is too wide, and the text with the
// least contrast to what is behind it (WCAG 2).
const measure = `<script>
const rgb = c => c.match(/[\d.]+/g).map(Number);
const luminance = c => rgb(c).slice(0, 3).map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
const clear = c => rgb(c)[3] === 0;
function behind(view, e) {
  for (; e; e = e.parentElement) {
    const c = view.getComputedStyle(e).backgroundColor;
    if (!clear(c)) return c;
  }
  return 'rgb(255, 255, 255)';
}
function look(frame) {
  const view = frame.contentWindow, doc = view.document, root = doc.documentElement;
  const found = {name: frame.dataset.name, width: view.innerWidth, content: root.scrollWidth, title: doc.title, text: doc.body.innerText,
    dark: view.matchMedia('(prefers-color-scheme: dark)').matches, background: view.getComputedStyle(doc.body).backgroundColor,
    contrast: 99, faint: '', wide: [], injected: doc.querySelectorAll('script, img').length, meters: doc.querySelectorAll('[role=meter]').length};
  for (const e of doc.body.querySelectorAll('*')) {
    const box = e.getBoundingClientRect();
    if (box.right > root.clientWidth + 1) found.wide.push(e.tagName + '.' + (e.getAttribute('class') || ''));
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || box.width < 2) continue;
    const a = luminance(view.getComputedStyle(e).color), b = luminance(behind(view, e));
    const contrast = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (contrast < found.contrast) { found.contrast = contrast; found.faint = e.textContent.trim().slice(0, 60); }
  }
  return found;
}
addEventListener('load', () => {
  const out = document.createElement('pre');
  out.id = 'measured';
  out.textContent = JSON.stringify([...document.querySelectorAll('iframe')].map(look));
  document.body.append(out);
});
</script>`

// view is one scene on one screen, as measured.
type view struct {
	Name       string
	Width      int
	Content    int
	Title      string
	Text       string
	Dark       bool
	Background string
	Contrast   float64
	Faint      string
	Wide       []string
	Injected   int
	Meters     int
}

// look returns what the browser shows.
func (s *stage) look(t *testing.T, chromium string, dark bool) []view {
	t.Helper()
	dom := browse(t, chromium, dark, "--dump-dom", s.url+"/stage")
	found := regexp.MustCompile(`(?s)<pre id="measured">(.*?)</pre>`).FindStringSubmatch(dom)
	if found == nil {
		t.Fatalf("the browser has measured nothing:\n%.2000s", dom)
	}
	var views []view
	if err := json.Unmarshal([]byte(html.UnescapeString(found[1])), &views); err != nil {
		t.Fatal(err)
	}
	if len(views) != len(s.scenes)*len(widths) {
		t.Fatalf("%d views, want %d", len(views), len(s.scenes)*len(widths))
	}
	return views
}

func (v view) check(t *testing.T, s *stage, dark bool) {
	t.Helper()
	name := fmt.Sprintf("%s, %d px, dark %v", v.Name, v.Width, dark)
	if v.Content > v.Width || len(v.Wide) > 0 {
		t.Errorf("%s: the content is %d px wide, because of %q", name, v.Content, v.Wide)
	}
	if v.Contrast < 4.5 {
		t.Errorf("%s: %q has a contrast of %.2f, WCAG AA wants 4.5", name, v.Faint, v.Contrast)
	}
	if v.Dark != dark || dark == (v.Background == "rgb(245, 246, 248)") {
		t.Errorf("%s: the background is %s", name, v.Background)
	}
	if v.Injected > 0 || v.Title == "owned" || v.Meters == 0 {
		t.Errorf("%s: %d elements that are not ours, the title %q, %d meters", name, v.Injected, v.Title, v.Meters)
	}
	for _, one := range s.scenes {
		for _, want := range one.want {
			if one.name == v.Name && !strings.Contains(v.Text, want) {
				t.Errorf("%s: %q cannot be read in\n%s", name, want, v.Text)
			}
		}
	}
}

// shoot keeps pictures of every scene.
func (s *stage) shoot(t *testing.T, chromium, dir string) {
	for _, one := range s.scenes {
		for _, dark := range []bool{false, true} {
			for path, size := range map[string]string{"/": "1280,1600", "/frame/": "500,2600"} {
				file := filepath.Join(dir, fmt.Sprintf("%s-%s-dark=%v.png", one.name, map[string]string{"/": "wide", "/frame/": "phone"}[path], dark))
				browse(t, chromium, dark, "--screenshot="+file, "--window-size="+size, s.url+path+one.name)
			}
		}
	}
}

// browse runs Chromium once, and returns what it prints.
func browse(t *testing.T, chromium string, dark bool, args ...string) string {
	t.Helper()
	scheme := "1" // light
	if dark {
		scheme = "0"
	}
	ctx, cancel := context.WithTimeout(t.Context(), rig.Patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, chromium, append([]string{
		"--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage",
		"--disable-background-networking", "--no-first-run", "--user-data-dir=" + t.TempDir(),
		"--blink-settings=preferredColorScheme=" + scheme,
	}, args...)...)
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		t.Fatalf("chromium: %v\n%s", err, &complaints)
	}
	return out.String()
}
