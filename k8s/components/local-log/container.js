// Makes the container `requests` in the Azurite of this pod, as soon as that answers; one that is there already is fine.
const crypto = require("crypto");
const http = require("http");

const account = "devstoreaccount1";
const key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
const path = `/${account}/requests`;

function make(attempt) {
  const date = new Date().toUTCString();
  const version = "2021-08-06";
  const text = `PUT${"\n".repeat(12)}x-ms-date:${date}\nx-ms-version:${version}\n/${account}${path}\nrestype:container`;
  const signature = crypto.createHmac("sha256", Buffer.from(key, "base64")).update(text).digest("base64");
  const headers = { "x-ms-date": date, "x-ms-version": version, "Content-Length": 0, Authorization: `SharedKey ${account}:${signature}` };
  const request = http.request({ port: 10000, path: `${path}?restype=container`, method: "PUT", headers }, (answer) => {
    process.exit([201, 409].includes(answer.statusCode) ? 0 : 1);
  });
  request.on("error", () => (attempt < 100 ? setTimeout(make, 200, attempt + 1) : process.exit(1)));
  request.end();
}
make(0);
