// Shows /openapi.json and sends what is filled in. Text is only ever put in as text.
"use strict";

function element(name, text, parent) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  if (parent) parent.append(made);
  return made;
}

function resolve(description, schema) {
  if (!schema || !schema.$ref) return schema || {};
  return schema.$ref.slice(2).split("/").reduce((at, part) => at[part], description);
}

function rule(description, schema) {
  const full = resolve(description, schema);
  if (full.enum) return full.enum.join(" | ");
  const kinds = (full.anyOf || [full]).map((one) => resolve(description, one).type || "");
  const parts = [kinds.flat().filter(Boolean).join(" or ")];
  if (full.minimum !== undefined) parts.push(`from ${full.minimum}`);
  if (full.maximum !== undefined) parts.push(`to ${full.maximum}`);
  if (full.default !== undefined) parts.push(`default ${full.default}`);
  return parts.join(" ");
}

function example(description, schema) {
  const full = resolve(description, schema);
  return full.examples ? full.examples[0] : undefined;
}

function field(description, parameter, parent) {
  const label = element("label", `${parameter.name}${parameter.required ? " *" : ""} `, parent);
  const words = [rule(description, parameter.schema), parameter.description].filter(Boolean);
  const hint = element("span", words.join(". "), label);
  hint.className = "hint";
  const input = element("input", "", label);
  const shown = parameter.example ?? example(description, parameter.schema);
  if (parameter.required && shown !== undefined) input.value = shown;
  return input;
}

function show(output, response, body) {
  const headers = [...response.headers].map(([name, value]) => `${name}: ${value}`);
  output.textContent = `${response.status} ${response.statusText}\n${headers.join("\n")}\n\n${body}`;
}

async function send(method, path, parameters, body, output) {
  let url = path;
  const query = new URLSearchParams();
  const headers = {};
  const key = document.getElementById("key").value.trim();
  if (key) headers["X-API-Key"] = key;
  for (const [parameter, input] of parameters) {
    if (input.value === "") continue;
    if (parameter.in === "path") url = url.replace(`{${parameter.name}}`, encodeURIComponent(input.value));
    else if (parameter.in === "query") query.append(parameter.name, input.value);
    else headers[parameter.name] = input.value;
  }
  if ([...query].length) url += `?${query}`;
  if (body) headers["Content-Type"] = "application/json";
  output.textContent = `${method} ${url} …`;
  try {
    const response = await fetch(url, { method, headers, body: body ? body.value : undefined, cache: "no-store" });
    show(output, response, await response.text());
  } catch (error) {
    output.textContent = String(error);
  }
}

function operation(description, path, method, what, parent) {
  const box = element("details", "", parent);
  const summary = element("summary", "", box);
  element("b", method.toUpperCase(), summary);
  element("code", path, summary);
  summary.append(` ${what.summary}`);
  if (what.description) element("p", what.description, box);
  const parameters = (what.parameters || []).map((parameter) => [parameter, field(description, parameter, box)]);
  let body = null;
  if (what.requestBody) {
    const schema = resolve(description, what.requestBody.content["application/json"].schema);
    const label = element("label", "Body (application/json)", box);
    body = element("textarea", "", label);
    body.value = JSON.stringify((schema.examples || [{}])[0], null, 2);
    for (const [name, member] of Object.entries(schema.properties || {})) {
      const must = (schema.required || []).includes(name) ? " *" : "";
      const line = element("div", `${name}${must}: ${rule(description, member)} ${resolve(description, member).description || ""}`, box);
      line.className = "hint";
    }
  }
  const button = element("button", "Send", box);
  const codes = element("p", `Answers: ${Object.keys(what.responses).join(", ")}`, box);
  codes.className = "hint";
  const output = element("pre", "", box);
  button.addEventListener("click", () => send(method.toUpperCase(), path, parameters, body, output));
}

async function main() {
  const about = document.getElementById("about");
  const description = await (await fetch("/openapi.json")).json();
  about.textContent = `${description.info.description} Version ${description.info.version}.`;
  const operations = document.getElementById("operations");
  for (const tag of description.tags) {
    element("h2", `${tag.name}: ${tag.description}`, operations);
    for (const [path, methods] of Object.entries(description.paths)) {
      for (const [method, what] of Object.entries(methods)) {
        if (what.tags[0] === tag.name) operation(description, path, method, what, operations);
      }
    }
  }
}

main().catch((error) => {
  document.getElementById("about").textContent = `The description cannot be read: ${error}`;
});
