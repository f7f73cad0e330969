"""A headless Chromium, spoken to over a pipe in the DevTools protocol (https://chromedevtools.github.io/devtools-protocol/);
nothing beside Python and Chromium is needed."""
import base64, json, os, select, shutil, subprocess, tempfile, time

PATIENCE = 60  # seconds: longer than anything here takes on a busy machine


def chromium():
    """Where Chromium is, or None."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """One Chromium; each person has windows of their own, which share no cookies with others'."""

    def __init__(self):
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        hear, self.tell = os.pipe()
        self.hear, tell = os.pipe()
        switches = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
                    "--no-first-run", "--remote-debugging-pipe", f"--user-data-dir={self.profile.name}"]
        # Chromium hears on descriptor 3 and answers on 4.
        script = f'exec "$@" 3<&{hear} 4>&{tell}'
        self.process = subprocess.Popen(["sh", "-c", script, "sh", chromium(), *switches], pass_fds=(hear, tell),
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(hear)
        os.close(tell)
        self.buffer, self.number = b"", 0

    def call(self, method, session=None, **parameters):
        """What the method returns."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.tell, data):]
        until = time.monotonic() + PATIENCE
        while True:
            while b"\0" in self.buffer:
                line, self.buffer = self.buffer.split(b"\0", 1)
                answer = json.loads(line)
                if answer.get("id") == self.number:
                    if "error" in answer:
                        raise RuntimeError(f"{method}: {answer['error']}")
                    return answer["result"]
            if not select.select([self.hear], [], [], max(0, until - time.monotonic()))[0]:
                raise TimeoutError(f"{method} did not answer in {PATIENCE} s")
            part = os.read(self.hear, 1 << 16)
            if not part:
                raise RuntimeError(f"Chromium ended during {method}")
            self.buffer += part

    def window(self, width=1280, height=900):
        """A window that knows nobody yet."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        return Window(self, session, width, height)

    def close(self):
        self.process.terminate()
        self.process.wait()


class Window:
    def __init__(self, browser, session, width, height):
        self.browser, self.session = browser, session
        self.call("Page.enable")
        self.size(width, height)

    def call(self, method, **parameters):
        return self.browser.call(method, self.session, **parameters)

    def size(self, width, height, phone=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)

    def colours(self, scheme):
        """`light` or `dark`."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def script(self, expression):
        """What an expression of JavaScript comes to."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def wait(self, expression, what=None):
        """Waits until an expression holds, over any change of page, and returns what it came to."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                value = self.script(expression)
            except RuntimeError:  # the page is changing just now
                value = None
            if value:
                return value
            if time.monotonic() > until:
                raise TimeoutError(f"{what or expression}: not in {PATIENCE} s. The page says:\n{self.text()}")
            time.sleep(0.05)

    def go(self, url):
        self.script("window.left = true")
        self.call("Page.navigate", url=url)
        self.loaded()

    def loaded(self):
        """Waits until another page than the one that `left` marks is there."""
        self.wait("!window.left && document.readyState === 'complete'")

    def text(self):
        """What can be read on the page."""
        return self.script("document.body.innerText")

    def shows(self, text):
        self.wait(f"document.body.innerText.includes({json.dumps(text)})", f"the page shows {text!r}")

    def fill(self, selector, text):
        found = json.dumps(selector)
        self.wait(f"document.querySelector({found}) !== null")
        self.script(f"(() => {{ const field = document.querySelector({found}); field.focus(); "
                    f"field.value = {json.dumps(text)}; field.dispatchEvent(new Event('input', {{bubbles: true}})); "
                    f"field.dispatchEvent(new Event('change', {{bubbles: true}})); }})()")

    def press(self, selector, label=None):
        """Presses what a selector finds, with this label if one is given."""
        found = (f"[...document.querySelectorAll({json.dumps(selector)})].find(e => e.offsetParent !== null && "
                 f"({json.dumps(label)} === null || e.innerText.trim() === {json.dumps(label)}))")
        self.wait(found + " !== undefined", f"{selector} {label or ''} can be pressed")
        self.script(f"{found}.click()")

    def follow(self, selector, label=None):
        """Presses something that leads to another page."""
        self.script("window.left = true")
        self.press(selector, label)
        self.loaded()

    def picture(self, path):
        data = self.call("Page.captureScreenshot", format="png")["data"]
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))
