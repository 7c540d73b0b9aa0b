// Grafana does not publish its state timeline, so this draws one on Grafana's own chart: a line of
// boxes per series, each in the colour and with the text that Grafana's libraries give its value.
import { FieldType, formattedValueToString, getFieldDisplayName } from '@grafana/data';
import { AxisPlacement, ScaleDirection, ScaleOrientation } from '@grafana/schema';
import { GraphNG, UPlotConfigBuilder } from '@grafana/ui';

const BOX = 0.9; // of a line's height
const PADDING = 4;

function prepared({ theme, timeZone, options }) {
  return (frame, frames, range) => {
    const builder = new UPlotConfigBuilder(timeZone);
    const lines = frame.fields.filter(({ type }) => type === FieldType.number);
    const middle = (index) => 1 - (index + 0.5) / lines.length;
    builder.setPrepData(([one]) => one.fields.map(({ values }) => values));
    builder.addScale({
      scaleKey: 'x', isTime: true, orientation: ScaleOrientation.Horizontal, direction: ScaleDirection.Right,
      range: () => [range().from.valueOf(), range().to.valueOf()],
    });
    builder.addScale({
      scaleKey: 'y', orientation: ScaleOrientation.Vertical, direction: ScaleDirection.Up, range: [0, 1],
    });
    builder.addAxis({ scaleKey: 'x', isTime: true, placement: AxisPlacement.Bottom, timeZone, theme, grid: { show: false } });
    builder.addAxis({
      scaleKey: 'y', placement: AxisPlacement.Left, theme, grid: { show: false }, ticks: { show: false },
      splits: lines.map((_, index) => middle(index)),
      values: () => lines.map((field) => getFieldDisplayName(field, frame, frames)),
    });
    for (const _ of lines) {
      builder.addSeries({ scaleKey: 'y', theme, pathBuilder: () => null, show: true, showPoints: 'never', lineWidth: 0 });
    }
    builder.addHook('draw', (u) => lines.forEach((field, index) => drawLine(u, frame.fields[0].values, field, middle(index), lines.length, theme, options)));
    return builder;
  };
}

function drawLine(u, times, { values, display, config }, middle, count, theme, { mergeValues }) {
  const { ctx, bbox } = u;
  const height = (bbox.height / count) * BOX;
  const y = u.valToPos(middle, 'y', true);
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  ctx.font = `500 12px ${theme.typography.fontFamily}`;
  ctx.textAlign = 'left';
  ctx.textBaseline = 'middle';
  for (let from = 0; from < values.length;) {
    let to = from + 1;
    while (to < values.length && mergeValues && values[to] === values[from]) to += 1;
    if (values[from] != null) {
      const left = u.valToPos(times[from], 'x', true);
      const right = to < values.length ? u.valToPos(times[to], 'x', true) : bbox.left + bbox.width;
      const shown = display(values[from]);
      const text = formattedValueToString(shown);
      ctx.globalAlpha = config.custom.fillOpacity / 100;
      ctx.fillStyle = shown.color;
      ctx.fillRect(left, y - height / 2, Math.max(1, right - left), height);
      ctx.globalAlpha = 1;
      if (ctx.measureText(text).width + 2 * PADDING < right - left) {
        ctx.fillStyle = theme.colors.text.maxContrast;
        ctx.fillText(text, left + PADDING, y);
      }
    }
    from = to;
  }
  ctx.restore();
}

export function Timeline({ options, ...props }) {
  return <GraphNG {...props} prepConfig={prepared({ ...props, options })} propsToDiff={[]} renderLegend={() => null} />;
}
