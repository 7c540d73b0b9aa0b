// Draws one Grafana dashboard from window.INPUT (ci/pictures/drawing.py writes it) and describes in
// the DOM what it drew: each panel has `data-panel` (its title), `data-series` (how many have a
// value), and `data-drawn`, the number of coloured pixels (of a number: characters). A type of panel,
// a transformation or an override that is not handled here is an error in `data-error`.
import '@fontsource/inter/latin-400.css';
import '@fontsource/inter/latin-500.css';
import { Component, useEffect } from 'react';
import { createRoot } from 'react-dom/client';
import { of } from 'rxjs';
import {
  FieldType, applyFieldOverrides, createTheme, dateTime, getDisplayValueAlignmentFactors,
  getFieldDisplayValues, standardTransformers, toDataFrame, ThemeContext,
} from '@grafana/data';
import { BigValue, PanelChrome, TimeSeries } from '@grafana/ui';
import { Timeline } from './timeline.jsx';

const { dashboard, variables, results, annotations, start, end, step } = window.INPUT;
const WIDTH = 1440, CELL = 30, GAP = 8, HEADER = 48;
const TIME_ZONE = 'utc';
const { renameByRegexTransformer } = standardTransformers;
const theme = createTheme({ colors: { mode: 'dark' } });
const timeRange = { from: dateTime(start * 1000), to: dateTime(end * 1000) };
timeRange.raw = timeRange;

// What Grafana's panels add to a field's configuration that says nothing of it.
const DEFAULTS = {
  timeseries: {
    color: { mode: 'palette-classic' },
    custom: {
      drawStyle: 'line', lineInterpolation: 'linear', lineWidth: 1, fillOpacity: 0, gradientMode: 'none',
      showPoints: 'auto', pointSize: 5, spanNulls: false, axisGridShow: true, axisPlacement: 'auto',
      stacking: { mode: 'none', group: 'A' }, thresholdsStyle: { mode: 'off' },
    },
  },
  stat: { color: { mode: 'thresholds' } },
  'state-timeline': { color: { mode: 'continuous-GrYlRd' }, custom: { fillOpacity: 70, lineWidth: 0 } },
};

const named = (format, labels) => format.replace(/\{\{\s*(.+?)\s*\}\}/g, (_, label) => labels[label] ?? '');

/** A point at each step, so that a gap is one: Prometheus leaves out where there is nothing. */
function grid(values) {
  if (values.length < 2) return values;
  const at = new Map(values.map(([time, value]) => [Math.round((time - start) / step), value]));
  return Array.from({ length: Math.floor((end - start) / step) + 1 }, (_, i) => [start + i * step, at.get(i)]);
}

/** One frame per series, as Grafana's Prometheus data source makes them, with colours and units. */
function frames(panel) {
  const { defaults, overrides } = panel.fieldConfig;
  if (overrides.length) throw new Error('overrides are not drawn');
  const plugin = DEFAULTS[panel.type];
  if (!plugin) throw new Error(`type ${panel.type}; drawn are: ${Object.keys(DEFAULTS).join(', ')}`);
  const config = { ...plugin, ...defaults, custom: { ...plugin.custom, ...defaults.custom } };
  let data = panel.targets.flatMap(({ refId, legendFormat }) =>
    results[panel.id][refId].map(({ metric, values }) => toDataFrame({
      refId,
      fields: [
        { name: 'Time', type: FieldType.time, config: {}, values: grid(values).map(([t]) => t * 1000) },
        {
          name: 'Value', type: FieldType.number, labels: metric,
          config: { ...config, displayNameFromDS: legendFormat && named(legendFormat, metric).trim() },
          values: grid(values).map(([, value]) => (Number.isFinite(+value) ? +value : null)),
        },
      ],
    })));
  for (const { id, options } of panel.transformations ?? []) {
    if (id !== renameByRegexTransformer.id) throw new Error(`transformation ${id}; drawn is: ${renameByRegexTransformer.id}`);
    renameByRegexTransformer.operator(options)(of(data)).subscribe((renamed) => { data = renamed; });
  }
  const nothing = { defaults: {}, overrides: [] };
  return applyFieldOverrides({ data, fieldConfig: nothing, theme, timeZone: TIME_ZONE, replaceVariables: (text) => text });
}

const valued = ({ fields }) => fields[1].values.some((value) => value != null);

/** Vertical lines where something happened, as Grafana draws annotations. */
function mark(builder) {
  builder.addHook('draw', (u) => {
    for (const { time, color } of annotations) {
      const x = Math.round(u.valToPos(time * 1000, 'x', true));
      u.ctx.save();
      u.ctx.strokeStyle = theme.visualization.getColorByName(color);
      u.ctx.lineWidth = 1;
      u.ctx.setLineDash([4, 4]);
      u.ctx.beginPath();
      u.ctx.moveTo(x, u.bbox.top);
      u.ctx.lineTo(x, u.bbox.top + u.bbox.height);
      u.ctx.stroke();
      u.ctx.restore();
    }
  });
  return null;
}

function Numbers({ panel, data, width, height }) {
  const { reduceOptions, colorMode, graphMode, justifyMode, textMode } = panel.options;
  const values = getFieldDisplayValues({
    data, reduceOptions, fieldConfig: { defaults: {}, overrides: [] }, theme, timeZone: TIME_ZONE,
    replaceVariables: (text) => text,
  });
  const factors = getDisplayValueAlignmentFactors(values);
  return values.map(({ display }, index) => (
    <BigValue key={index} value={display} width={width / values.length} height={height} theme={theme}
      count={values.length} alignmentFactors={factors} {...{ colorMode, graphMode, justifyMode, textMode }} />
  ));
}

function Content({ panel, data, width, height }) {
  if (!data.length) return <div className="nothing">{panel.fieldConfig.defaults.noValue}</div>;
  const common = { frames: data, timeRange, timeZone: TIME_ZONE, theme, width, height, legend: panel.options.legend };
  if (panel.type === 'stat') return <Numbers {...{ panel, data, width, height }} />;
  if (panel.type === 'state-timeline') return <Timeline {...common} options={panel.options} />;
  return <TimeSeries {...common}>{mark}</TimeSeries>;
}

/** A panel that cannot be drawn says why, and the others are drawn. */
class Guard extends Component {
  state = {};
  static getDerivedStateFromError(error) { return { error }; }
  render() {
    return this.state.error ? <div data-error={String(this.state.error)} /> : this.props.children;
  }
}

function Drawn({ panel }) {
  const data = frames(panel);
  const { x, y, w, h } = panel.gridPos;
  const cell = (WIDTH - GAP) / 24;
  const place = { left: GAP + x * cell, top: HEADER + y * (CELL + GAP), width: w * cell - GAP, height: h * (CELL + GAP) - GAP };
  return (
    <div className="panel" style={place} data-panel={panel.title} data-kind={panel.type} data-series={data.filter(valued).length}>
      <PanelChrome title={panel.title} width={place.width} height={place.height} padding={panel.type === 'stat' ? 'none' : 'md'}>
        {(width, height) => <Content {...{ panel, data, width, height }} />}
      </PanelChrome>
    </div>
  );
}

function Row({ panel }) {
  return <h2 className="panel" style={{ left: GAP, top: HEADER + panel.gridPos.y * (CELL + GAP) }}>{panel.title}</h2>;
}

function Dashboard() {
  useEffect(() => { setTimeout(measure, 500); }, []);
  const lines = Math.max(...dashboard.panels.map(({ gridPos }) => gridPos.y + gridPos.h));
  return (
    <ThemeContext.Provider value={theme}>
      <main style={{ width: WIDTH, height: HEADER + lines * (CELL + GAP) }}>
        <header>
          <h1>{dashboard.title}</h1>
          {variables.map(([label, value]) => <span key={label}>{label} <b>{value}</b></span>)}
          <time>{timeRange.from.utc().format('YYYY-MM-DD HH:mm')} to {timeRange.to.utc().format('HH:mm')} UTC</time>
        </header>
        {dashboard.panels.map((panel) => (
          <Guard key={panel.id}>{panel.type === 'row' ? <Row panel={panel} /> : <Drawn panel={panel} />}</Guard>
        ))}
      </main>
    </ThemeContext.Provider>
  );
}

/** Grid lines and axes are grey, so a coloured pixel is data. */
function coloured(canvas) {
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  let count = 0;
  for (let i = 0; i < data.length; i += 4) {
    const high = Math.max(data[i], data[i + 1], data[i + 2]), low = Math.min(data[i], data[i + 1], data[i + 2]);
    if (data[i + 3] > 32 && high - low > 32) count += 1;
  }
  return count;
}

function measure() {
  for (const panel of document.querySelectorAll('[data-panel]')) {
    const canvases = [...panel.querySelectorAll('.u-wrap > canvas')];
    const text = panel.dataset.kind === 'stat' && +panel.dataset.series ? panel.innerText.replace(panel.dataset.panel, '').trim() : '';
    panel.dataset.drawn = canvases.reduce((sum, canvas) => sum + coloured(canvas), text.length);
  }
  document.documentElement.dataset.done = 'yes';
}

// What is thrown outside of a panel's drawing, such as in a chart's own timers.
window.addEventListener('error', ({ message }) => { document.body.dataset.error = message; });

const style = document.createElement('style');
style.textContent = `
  body { margin: 0; background: ${theme.colors.background.canvas}; color: ${theme.colors.text.primary};
    font: 14px ${theme.typography.fontFamily}; }
  main { position: relative; overflow: hidden; }
  header { display: flex; gap: 20px; align-items: baseline; padding: 10px ${GAP}px 0; color: ${theme.colors.text.secondary}; }
  header h1 { font-size: 18px; font-weight: 500; margin: 0; color: ${theme.colors.text.primary}; }
  header b { font-weight: 500; color: ${theme.colors.text.primary}; }
  header time { margin-left: auto; }
  .panel { position: absolute; } h2.panel { font-size: 15px; font-weight: 500; margin: 6px 0 0; }
  .nothing { height: 100%; display: flex; align-items: center; justify-content: center; text-align: center; color: ${theme.colors.text.secondary}; }
  .panel button { background: none; border: 0; color: inherit; font: inherit; padding: 0; }
  .panel h2 { margin: 0; font-size: 14px; font-weight: 500; } .panel ul { list-style: none; margin: 0; padding: 0; }
`;
document.head.append(style);
document.fonts.load('12px Inter').then(() => createRoot(document.getElementById('root')).render(<Dashboard />));
