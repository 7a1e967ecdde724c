// Shows the engine's own description and asks this engine only. Keys are kept in the page and go with it.
"use strict";
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#viewer",
  presets: [SwaggerUIBundle.presets.apis],
  deepLinking: true,
  displayRequestDuration: true,
  persistAuthorization: false,
  // Neither a validator elsewhere, nor a description that a link names.
  validatorUrl: null,
  queryConfigEnabled: false,
});
