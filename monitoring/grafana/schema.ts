// What fusebox.json has to be, in Grafana's own types as far as they go.
//
// Grafana's type of a panel leaves open what belongs to its kind, so each kind that we use is put together here from the
// types of that panel. Grafana's query of Prometheus has no published type: ours has the fields that we set.

import type * as raw from "@grafana/schema/dist/esm/raw/dashboard/x/Dashboard_types.gen";
import type * as heatmap from "@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen";
import type * as stat from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type * as timeline from "@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen";
import type * as table from "@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen";
import type * as timeseries from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";

/** As JSON has it: an enum of strings is one of its strings. */
type Json<T> = T extends string ? `${T}` : T extends object ? { [K in keyof T]: Json<T[K]> } : T;

type Replace<T, U> = Omit<T, keyof U> & U;

/** The data source that the variable of that name stands for. */
type Source = { type: "prometheus"; uid: "${datasource}" };

type Query = {
  refId: string;
  expr: string;
  legendFormat?: string;
  format?: "time_series" | "table" | "heatmap";
  instant?: boolean;
};

/** With some of its fields required, because ours always have them. */
type With<T, Fields extends keyof T> = T & Required<Pick<T, Fields>>;

/** A kind of panel: what it draws, and how a field is drawn. */
type Kind<Type extends string, Options, Custom> = Replace<
  With<raw.Panel, "id" | "title" | "description" | "gridPos">,
  {
    type: Type;
    datasource: Source;
    targets: Query[];
    options: Options;
    fieldConfig: Replace<raw.FieldConfigSource, { defaults: Replace<raw.FieldConfig, { custom?: Custom }> }>;
  }
>;

type Panel =
  | Kind<"heatmap", heatmap.Options, heatmap.FieldConfig>
  | Kind<"stat", stat.Options, never>
  | Kind<"state-timeline", timeline.Options, timeline.FieldConfig>
  | Kind<"table", table.Options, Partial<table.FieldConfig>>
  | Kind<"timeseries", timeseries.Options, timeseries.FieldConfig>;

/** With what the data source of Prometheus adds: in this form it is read by old versions and new ones. */
type Annotation = Replace<
  raw.AnnotationQuery,
  { datasource: Source; expr: string; titleFormat: string; textFormat: string; tagKeys: string }
>;

type Variable = Replace<raw.VariableModel, { type: "datasource" | "query" }>;

export type Dashboard = Json<
  Replace<
    With<raw.Dashboard, "uid" | "title" | "description" | "tags" | "time" | "refresh">,
    { panels: Panel[]; annotations: { list: Annotation[] }; templating: { list: Variable[] }; schemaVersion: number }
  >
>;
