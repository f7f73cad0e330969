#!/usr/bin/env python3
"""The day of docs/one-day.md, lived by two people in two browsers and a terminal, on one machine; every claim is checked.

usage: docs/one-day/day.py [MINKE] [--pictures DIR]

MINKE is the program (default: target/release/minke). With --pictures, screenshots are kept there. It needs Chromium, and ends
with code 1 at the first thing that is not as the page says.
"""
import argparse, filecmp, json, os, re, subprocess, sys, tempfile, time

from browser import Browser, chromium

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# Chips change hands at the pace of the day: runs of a minute, not of days.
TURN = "200ms"
IDEA = "Short thoughts help a tiny model to add"
ALMOST = "Do short thoughts help tiny models add?"
OTHER = "A model that answers at once does as well"
BATTLES = 10


def check(holds, otherwise):
    if not holds:
        raise AssertionError(otherwise)


class Day:
    def __init__(self, minke, pictures):
        self.minke, self.pictures, self.began = minke, pictures, time.monotonic()
        self.place = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.environment = os.environ | {"MINKE_HOME": os.path.join(self.place.name, "home")}
        command = [minke, "serve", "--listen", "127.0.0.1:0", "--json", "--person", "Ada", "--chips", "1", "--turn", TURN]
        self.server = subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, text=True)
        started = json.loads(self.server.stdout.readline())
        self.address, self.link = started["address"], started["login"]
        self.browser = Browser()
        self.ada, self.bob = self.browser.window(), self.browser.window()
        self.say(f"minke serve: {self.address}, and a link for Ada to log in")

    def say(self, what):
        passed = int(time.monotonic() - self.began)
        print(f"{passed // 60}:{passed % 60:02}  {what}", flush=True)

    def terminal(self, *words):
        """What a command of Ada's prints."""
        done = subprocess.run([self.minke, *words], env=self.environment, capture_output=True, text=True, cwd=self.place.name)
        check(done.returncode == 0, f"minke {' '.join(words)}: {done.stderr}")
        return done.stdout

    def shown(self, *words):
        print("      $ minke " + " ".join(words))
        for line in self.terminal(*words).rstrip().splitlines():
            print("        " + line)

    def go(self, window, path):
        window.go(self.address + path)

    def picture(self, window, name, width=1280, height=900, colours="light"):
        if self.pictures:
            window.colours(colours)
            window.size(width, height, phone=width < 500)
            time.sleep(0.3)  # until it is drawn anew
            window.picture(os.path.join(self.pictures, f"{name}.png"))
            window.size(1280, 900)

    def recipe(self, name):
        with open(os.path.join(ROOT, f"recipes/{name}.toml")) as file:
            return file.read()

    def attempt(self, window, sentence, recipe):
        """Fills in the form for an idea and sends it."""
        self.go(window, "/ideas")
        window.fill("#sentence", sentence)
        window.press("form.attempt summary")
        window.fill("#recipe", self.recipe(recipe))
        window.follow("form.attempt button.primary")

    def state(self, run):
        return json.loads(self.terminal("run", str(run), "--json"))

    def until(self, run, what, patience=240):
        """What is told of a run once something holds of it."""
        end = time.monotonic() + patience
        while not what(told := self.state(run)):
            check(time.monotonic() < end, f"not in {patience} s: {json.dumps(told, indent=1)}")
            over = told["state"] in ("done", "failed", "stopped")
            check(not over, f"run {run}: {told['why']}\n{self.terminal('logs', str(run))[-2000:]}")
            time.sleep(0.1)
        return told

    def morning(self):
        """Two people, an idea, its repeat, and a join."""
        ada, bob = self.ada, self.bob
        ada.go(self.link)
        ada.follow("button", "Log in")
        self.go(ada, "/account")
        ada.fill("form[action='/account/invite'] input[name=name]", "Bob")
        ada.follow("form[action='/account/invite'] button")
        bob.go(ada.wait("document.querySelector('.secret')?.innerText"))
        bob.follow("button", "Log in")
        self.say("Ada logs in, and makes Bob a link; now there are two")

        start = time.monotonic()
        self.attempt(ada, IDEA, "day")
        self.until(1, lambda told: (told["progress"] or [0])[0] > 0)
        first = time.monotonic() - start
        check(first < 10, f"the first step took {first:.1f} s")
        self.say(f"Ada tries an idea: “{IDEA}”. {first:.1f} s later run 1 has taken its first step")

        self.until(1, lambda told: 10 * told["progress"][0] > told["progress"][1])
        self.attempt(bob, ALMOST, "day")
        bob.shows("There is something like it")
        said = bob.script("document.querySelector('ul.cards p').innerText")
        check("Ada started" in said and "%" in said, said)
        check(len(json.loads(self.terminal("runs", "--json"))) == 1, "a repeat was run before anybody said so")
        self.picture(bob, "repeat", 390, 844)
        self.say(f"Bob tries nearly the same, and is told, before a chip is spent: “{said}”")
        bob.follow("button", "Ask to join")
        self.go(ada, "/inbox")
        ada.shows("Bob would like to join")
        ada.follow("button", "Accept")
        self.go(bob, "/ideas/1")
        names = bob.script("[...document.querySelectorAll('ul.names li')].map(e => e.innerText).join()")
        check(names == "Ada,Bob", names)
        self.say("Bob asks to join, Ada accepts: the idea is theirs together")

    def noon(self):
        """Another run wants the only chip."""
        ada, bob = self.ada, self.bob
        self.attempt(bob, OTHER, "day-direct")
        if "There is something like it" in bob.text():
            bob.follow("button", "Go on all the same")
        self.say(f"Bob tries another idea: “{OTHER}”. There is one chip")
        self.go(ada, "/runs/1")
        told = self.until(1, lambda told: told["state"] == "waiting")
        # What comes before the colon says how long ago, and the page may be a second later.
        ada.shows(told["why"].split(".")[0].split(": ", 1)[-1])
        at = told["progress"][0]
        check(0 < at < told["progress"][1], f"run 1 gave its chip back after its step {at}")
        self.picture(ada, "waits", colours="dark")
        self.say(f"Run 1 is suspended at the end of step {at} and says why: “{told['why']}”")
        self.until(2, lambda told: told["state"] == "done")
        self.say("Run 2 is done")
        self.until(1, lambda told: told["progress"][0] > at)
        # Watched live, without loading the page again.
        ada.wait("document.querySelectorAll('.curves svg').length >= 3", "curves are drawn")
        done = self.until(1, lambda told: told["state"] == "done")
        ada.wait("document.querySelector('.state.done') !== null", "the page says that the run is done")
        check(len(done["stints"]) >= 2, "run 1 had one stint only")
        self.shown("why", "1")
        self.go(ada, "/runs/1")
        self.picture(ada, "run", 1280, 1100)
        # Rollouts: thoughts, rewards and advantages.
        ada.follow("a[href='/runs/1/rollouts']")
        text = ada.text().lower()
        check("reward" in text and "advantage" in text, text)
        self.picture(ada, "rollouts", 390, 844)
        self.say("Run 1 went on from there and is done; its curves and every rollout are on its page")

        alone = os.path.join(self.place.name, "alone")
        subprocess.run([self.minke, "train", os.path.join(ROOT, "recipes/day.toml"), "--out", alone],
                       env=self.environment | {"MINKE_THREADS": "1"}, check=True, capture_output=True)
        kept = self.weights(os.path.join(self.environment["MINKE_HOME"], "runs/r1"))
        check(filecmp.cmp(kept, self.weights(alone), shallow=False), "the weights differ from an undisturbed run's")
        self.say("The same recipe, trained undisturbed, comes to the same weights, bit for bit")

    def weights(self, directory):
        for path, _, files in os.walk(directory):
            if os.path.basename(path) == "model" and "model.safetensors" in files:
                return os.path.join(path, "model.safetensors")
        raise AssertionError(f"there is no model in {directory}")

    def afternoon(self):
        """The model thinks aloud; its siblings fight in the arena."""
        ada, bob = self.ada, self.bob
        self.go(ada, "/runs/1")
        ada.follow("a", "Talk to its model")
        check(ada.script("document.querySelector('#model').value") == "r1", "another model is chosen")
        ada.fill("#text", "37+5=")
        ada.press("#send")
        ada.wait("document.querySelector('article.turn.model .answer')?.innerText.trim()", "an answer")
        ada.wait("document.querySelector('section.thought button')?.innerText.includes('Thought for')", "a thought")
        ada.press("section.thought button")
        step = ada.wait("document.querySelector('section.thought li .text')?.innerText")
        answer = ada.script("document.querySelector('article.turn.model .answer').innerText.trim()")
        self.picture(ada, "chat", 390, 844, "dark")
        self.say(f"Ada asks its model for 37+5=. It thinks “{step}” and answers {answer}")

        for battle in range(BATTLES):
            self.battle([ada, bob][battle % 2], f"{3 + 7 * battle}+{9 + 4 * battle}=")
        self.say(f"{BATTLES} blind battles, {BATTLES // 2} each, on sums whose right answers they know")

        self.go(bob, "/arena")
        rows = bob.script("[...document.querySelector('table.board').querySelectorAll('tbody tr')].map(row => row.innerText)")
        check(len(rows) == 2, rows)
        for row in rows:
            rank, model, rating, low, high, votes = re.match(r"(\d+)\s+(\S+)\s+(-?\d+)\s+(-?\d+)–(-?\d+)\s+(\d+)", row).groups()
            check(int(low) < int(rating) < int(high) and int(votes) == BATTLES, row)
            self.say(f"The board: rank {rank}, {model}, rated {rating}, 95 % between {low} and {high}, {votes} votes")
        self.picture(bob, "board")
        # From a rating back to the battles, the run, the rollouts and the idea.
        bob.follow("table.board a", "r1")
        self.picture(bob, "model", 390, 844)
        battles = bob.script("document.querySelectorAll('a[href^=\"/arena/battle/\"]').length")
        check(battles == BATTLES, f"{battles} battles")
        bob.follow("ul.battles a[href^='/arena/battle/']")
        check("r1" in bob.script("document.querySelector('h1').innerText"), bob.text())
        bob.follow("p.unmasked a", "r1")
        bob.follow("a[href='/runs/1']")
        bob.follow("a[href='/runs/1/rollouts']")
        bob.follow("a[href='/runs/1']")
        bob.follow("a[href='/ideas/1']")
        check(bob.script("document.querySelector('h1').innerText") == IDEA, bob.text())
        self.say("From r1's rating Bob walks back to a battle, to its run, to its rollouts, and to the idea")
        self.go(ada, "/cluster")
        self.picture(ada, "cluster")
        self.shown("arena", "board")
        self.shown("lab", "report")

    def battle(self, window, prompt):
        """Asks two models that nobody names, and votes for the one that adds."""
        self.go(window, "/arena/battle")
        window.fill("#text", prompt)
        window.press("#ask button")
        window.wait("document.querySelector('#vote') && !document.querySelector('#vote').hidden", "there is a ballot")
        page = window.script("document.documentElement.outerHTML")
        check("r1" not in re.findall(r"\w+", page) and "r2" not in re.findall(r"\w+", page), "the page says who is who")
        answers = window.script("[...document.querySelectorAll('.side .answer')].map(e => e.innerText.trim())")
        thinks = window.script("[...document.querySelectorAll('.side')].map(e => !!e.querySelector('.thought'))")
        total = str(sum(map(int, prompt.rstrip("=").split("+"))))
        verdict = lambda good: {(True, False): "left", (False, True): "right", (True, True): "tie"}.get(tuple(good), "both-bad")
        self.choose(window, "answers", verdict([answer == total for answer in answers]))
        if any(thinks):
            self.choose(window, "thoughts", verdict(thinks))
        if prompt == "3+9=":
            self.picture(window, "battle")
        window.follow("#vote button")
        window.wait("document.querySelectorAll('p.unmasked').length === 2", "the two are named")

    def choose(self, window, name, value):
        window.script(f"document.querySelector('input[name={name}][value={value}]').click()")

    def close(self):
        self.browser.close()
        self.server.terminate()
        self.server.wait()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("minke", nargs="?", default=os.path.join(ROOT, "target/release/minke"))
    p.add_argument("--pictures", metavar="DIR")
    a = p.parse_args()
    if not chromium():
        sys.exit("there is no Chromium; install Debian's package `chromium`, or another of that kind")
    day = Day(os.path.abspath(a.minke), a.pictures)
    try:
        day.morning()
        day.noon()
        day.afternoon()
    finally:
        day.close()


if __name__ == "__main__":
    main()
