"use strict";
const find = (id) => document.getElementById(id);
const make = (tag, text, name) => {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (name) element.className = name;
  return element;
};
const integer = new Intl.NumberFormat("en");
const figure = (value, digits) => (value === null || value === undefined ? "–" : value.toFixed(digits));
const percent = (value) => (value > 0 && value < 0.001 ? "< 0.1 %" : figure(100 * value, 1) + " %");
const token = find("token");
const headers = () => (token && token.value ? { Authorization: "Bearer " + token.value.trim() } : {});

function row(cells) {
  const line = make("tr");
  for (const [text, name] of cells) line.append(make("td", text, name));
  return line;
}

function since(seconds) {
  if (seconds < 60) return seconds + " s";
  if (seconds < 3600) return Math.floor(seconds / 60) + " min";
  if (seconds < 86400) return Math.floor(seconds / 3600) + " h " + Math.floor((seconds % 3600) / 60) + " min";
  return Math.floor(seconds / 86400) + " d " + Math.floor((seconds % 86400) / 3600) + " h";
}

function status(kind, text) {
  find("status").dataset.is = kind;
  if (find("status").textContent !== text) find("status").textContent = text;
}

async function refresh() {
  try {
    let answer = await fetch("state", { headers: headers(), cache: "no-store" });
    if (answer.status === 401 || answer.status === 403) answer = await fetch("state", { cache: "no-store" });
    if (!answer.ok) throw new Error();
    const now = await answer.json();
    status(now.unready === null ? "ready" : "unready", now.unready === null ? "Ready" : "Not ready: " + now.unready);
    for (const name of ["machines_scored", "offered", "stored", "rejected", "in_flight", "unsent_segments"])
      find(name).textContent = now[name] === null ? "–" : integer.format(now[name]);
    find("uptime").textContent = since(now.uptime_seconds);
    recent(now.recent);
  } catch {
    status("unready", "The service does not answer");
  }
}

function recent(results) {
  const table = find("recent");
  table.hidden = !results || !results.length;
  find("nothing").hidden = !table.hidden;
  find("nothing").textContent = results
    ? "Nothing has been scored since the service started."
    : "Enter a token with the scope “score” in the form to see the last results.";
  table.tBodies[0].replaceChildren(
    ...(results || []).map((result) =>
      row([
        [result.machineID + (result.alarm ? " alarm" : ""), result.alarm ? "alarm" : ""],
        [result.datetime.slice(0, 16).replace("T", " ").replaceAll("-", "\u2011")],
        [figure(result.anomaly, 2), "number"],
        [result.component === null ? "–" : result.component + " " + percent(result.probability), "number"],
      ]),
    ),
  );
}

function reasons(result) {
  return Object.entries({ anomaly: result.anomaly, ...result.failure })
    .filter(([, head]) => head && head.contributions)
    .map(([name, head]) => name + " alarms by " + head.contributions.map((one) => one.text).join("; "));
}

const LEVELS = {
  none: "nothing to do",
  watch: "watch it: just below an alarm",
  warn: "an alarm: look at it",
  act: "act: even the strictest threshold alarms",
};

function shown(results) {
  const rows = [];
  for (const result of results) {
    const heads = Object.entries(result.failure).map(([name, head]) => [name, head, head && head.probability]);
    heads.unshift(["anomaly", result.anomaly, result.anomaly && result.anomaly.score]);
    for (const [name, head, value] of heads)
      rows.push(
        row([
          [result.machineID],
          [name],
          [name === "anomaly" ? figure(value, 2) : head ? percent(value) : "–", "number"],
          [head ? (head.alarm ? "alarm" : "no") : "no head", head && head.alarm ? "alarm" : "calm"],
        ]),
      );
  }
  return rows;
}

find("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const send = find("send");
  send.disabled = true;
  find("outcome").textContent = "Sending…";
  find("scores").hidden = true;
  find("warnings").replaceChildren();
  try {
    const start = performance.now();
    const answer = await fetch("score?include=severity,contributions,confidence", {
      method: "POST",
      headers: { "Content-Type": "application/json", "Closed-Loop-Dry-Run": "1", ...headers() },
      body: find("body").value,
    });
    const text = await answer.text();
    const took = Math.round(performance.now() - start);
    let body = null;
    try {
      body = JSON.parse(text);
    } catch {
      // not JSON: shown as text
    }
    find("outcome").textContent = answer.ok
      ? "Answered in " + took + " ms, and not logged."
      : answer.status + " " + (body ? body.title + ". " + body.detail : "");
    find("outcome").className = answer.ok ? "" : "alarm";
    if (answer.ok) {
      find("scores").tBodies[0].replaceChildren(...shown(body.results));
      find("scores").hidden = false;
      for (const result of body.results) {
        const told = [LEVELS[result.severity] + ", by " + percent(result.confidence) + " of its history", ...reasons(result)];
        for (const line of [...told, ...result.warnings])
          find("warnings").append(make("li", "Machine " + result.machineID + ": " + line));
      }
    }
    find("raw").textContent = body ? JSON.stringify(body, null, 1) : text;
    find("details").hidden = false;
  } catch {
    find("outcome").textContent = "The service does not answer.";
    find("outcome").className = "alarm";
  }
  send.disabled = false;
  refresh();
});

const example = find("body").value;
find("reset").addEventListener("click", () => (find("body").value = example));
if (token) token.addEventListener("change", refresh);
refresh();
setInterval(() => document.hidden || refresh(), 3000);
