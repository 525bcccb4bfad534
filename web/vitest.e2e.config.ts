import { defineConfig } from "vitest/config";

// The browser tests are a run of their own: they need Chromium and the built template.
export default defineConfig({
  test: {
    include: ["test/e2e/*.test.ts"],
    environment: "node",
    testTimeout: 120_000,
    hookTimeout: 120_000,
    fileParallelism: false,
  },
});
