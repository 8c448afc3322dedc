"use strict";
const here = new URL(".", location.href).href.replace(/\/$/, "");
for (const code of document.querySelectorAll(".call pre")) code.textContent = code.textContent.replaceAll("http://localhost:8000", here);

// Without its script the page keeps the plain list of the routes.
if (window.SwaggerUIBundle) {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const paint = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
  dark.addEventListener("change", paint);
  paint();
  const place = document.createElement("div");
  document.getElementById("try").replaceChildren(place);
  document.getElementById("dry").hidden = false;
  // what Swagger UI leaves without a name, or out of the keyboard's reach
  const complete = () => {
    for (const field of place.querySelectorAll("select, textarea, input")) {
      if (field.labels.length || field.hasAttribute("aria-label")) continue;
      const row = field.closest("[data-param-name]");
      const what = { SELECT: "Choice", TEXTAREA: "Request body", INPUT: "Value" }[field.tagName];
      field.setAttribute("aria-label", row ? row.dataset.paramName : what);
    }
    for (const button of place.querySelectorAll("button")) {
      if (button.matches(".modal-btn")) button.removeAttribute("aria-label"); // its text is its name
      else if (!button.textContent.trim() && !button.hasAttribute("aria-label"))
        button.setAttribute("aria-label", button.matches(".close-modal") ? "Close" : "Copy");
    }
    for (const part of place.querySelectorAll("pre, .highlight-code, .model-container, .table-container")) part.tabIndex = 0;
  };
  new MutationObserver(complete).observe(place, { childList: true, subtree: true });
  SwaggerUIBundle({
    url: "openapi.json",
    domNode: place,
    validatorUrl: null,
    tryItOutEnabled: true,
    defaultModelsExpandDepth: 0,
    docExpansion: "list",
    requestInterceptor: (request) => {
      if (request.method === "POST") request.headers["Closed-Loop-Dry-Run"] = "1";
      return request;
    },
  });
}
